/* The calculator of the page "Sizing". No library; `needed` is plain arithmetic, which the tests run beside the same in Python. */
"use strict";

const SIZING = { mebibyte: 1048576, margin: 1.1, batch: 512, delay: 0.8, memoryOverhead: 512, encodingMb: 0.75, diskOverhead: 200, reserveMb: 64, deadLetterMb: 16 };

/**
 * What an outage needs, if nothing is to be lost.
 * @param {number} rate items a second, of all processes together
 * @param {number} minutes how long the outage lasts
 * @param {number} bytesPerItem of an item that is sealed
 * @param {number} processes that share the load and the spool equally
 */
function needed(rate, minutes, bytesPerItem, processes) {
  const seconds = minutes * 60;
  const batch = Math.min(SIZING.batch, Math.max(1, (rate / processes) * SIZING.delay));
  const onDisk = rate * (bytesPerItem + SIZING.diskOverhead / batch) * seconds * SIZING.margin;
  const items = (rate / processes) * seconds * SIZING.margin;
  const inMemory = items * (bytesPerItem + SIZING.memoryOverhead / batch);
  const spoolMb = rounded(onDisk / SIZING.mebibyte);
  return {
    items: Math.ceil(rate * seconds),
    spoolMb: spoolMb,
    volumeMb: spoolMb + SIZING.reserveMb + SIZING.deadLetterMb,
    maxAge: rounded(seconds * SIZING.margin),
    maxSize: rounded(items),
    maxMemoryMb: rounded(inMemory / SIZING.mebibyte + SIZING.encodingMb),
  };
}

/** A number that is not less, with two digits that count. */
function rounded(value) {
  if (value <= 0) return 0;
  const step = 10 ** Math.max(0, Math.floor(Math.log10(value)) - 1);
  return Math.ceil(value / step) * step;
}

if (typeof module !== "undefined") {
  module.exports = { needed };
} else {
  document.addEventListener("DOMContentLoaded", () => {
    const form = document.getElementById("sizing-calculator");
    if (form !== null) start(form);
  });
}

function start(form) {
  const output = form.querySelector("output");
  const fields = ["rate", "minutes", "bytes", "processes"].map((name) => form.elements.namedItem(name));
  const update = () => {
    const wrong = fields.filter((field) => !(field.validity.valid && field.value !== ""));
    fields.forEach((field) => field.setAttribute("aria-invalid", String(wrong.includes(field))));
    output.replaceChildren(...(wrong.length ? [text("p", "Each field takes a number above 0.")] : shown(...fields.map((field) => Number(field.value)))));
  };
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  update();
}

function shown(rate, minutes, bytesPerItem, processes) {
  const need = needed(rate, minutes, bytesPerItem, processes);
  const age = minutes * 60 > 172800 ? `\nSURGETANK_SPOOL_MAX_AGE=${need.maxAge}` : "";
  const list = document.createElement("dl");
  for (const [term, value] of [
    ["Items that are made meanwhile", need.items.toLocaleString("en")],
    ["The spool for them", size(need.spoolMb)],
    ["The volume, with reserve and dead letters", size(need.volumeMb)],
    ["Without a spool: memory in each process", size(need.maxMemoryMb)],
  ]) {
    const row = document.createElement("div");
    row.append(text("dt", term), text("dd", value));
    list.append(row);
  }
  const settings = document.createElement("pre");
  settings.append(
    text(
      "code",
      `# with a spool\nSURGETANK_SPOOL_MAX_MB=${need.spoolMb}${age}\n\n# without one, for spans\nSURGETANK_SPANS_MAX_SIZE=${need.maxSize}\nSURGETANK_SPANS_MAX_MEMORY_MB=${need.maxMemoryMb}`,
    ),
  );
  return [list, settings];
}

function text(tag, content) {
  const element = document.createElement(tag);
  element.textContent = content;
  return element;
}

function size(mebibytes) {
  if (mebibytes >= 1024) return `${(mebibytes / 1024).toLocaleString("en", { maximumFractionDigits: 1 })} GiB`;
  return `${mebibytes.toLocaleString("en", { maximumFractionDigits: mebibytes < 10 ? 1 : 0 })} MiB`;
}
