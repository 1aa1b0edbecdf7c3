/* The calculator of the page "Sizing". No library; `needed` is plain arithmetic, which the tests run beside the same in Python. */
"use strict";

const SIZING = { mebibyte: 1048576, headroom: 1.25, batch: 512, batchOverhead: 512, reserveMb: 64, deadLetterMb: 16 };

/**
 * What an outage needs.
 * @param {number} rate items a second, in one process
 * @param {number} minutes how long the outage lasts
 * @param {number} bytesPerItem of an item that is sealed
 * @param {number} processes that share a spool
 */
function needed(rate, minutes, bytesPerItem, processes) {
  const items = Math.ceil(rate * minutes * 60);
  const bytes = items * bytesPerItem;
  const batches = Math.ceil(items / SIZING.batch);
  const spoolMb = Math.max(16, Math.ceil((SIZING.headroom * bytes * processes) / SIZING.mebibyte));
  return {
    items: items,
    bytes: bytes,
    spoolMb: spoolMb,
    volumeMb: spoolMb + SIZING.reserveMb + SIZING.deadLetterMb,
    maxSize: Math.ceil(SIZING.headroom * items),
    maxMemoryMb: Math.max(16, Math.ceil((SIZING.headroom * (bytes + batches * SIZING.batchOverhead)) / SIZING.mebibyte)),
  };
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
  const seconds = Math.ceil(1.25 * minutes * 60);
  const age = seconds > 172800 ? `\nSURGETANK_SPOOL_MAX_AGE=${seconds}` : "";
  const list = document.createElement("dl");
  for (const [term, value] of [
    ["Items that one process makes meanwhile", need.items.toLocaleString("en")],
    ["Their bytes, sealed", size(need.bytes / SIZING.mebibyte)],
    ["The spool of all processes, a quarter to spare", size(need.spoolMb)],
    ["The volume for it, with reserve and dead letters", size(need.volumeMb)],
    ["Memory in its place, for each process without a spool", size(need.maxMemoryMb)],
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
