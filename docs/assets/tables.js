/* On a narrow screen each row of a wide table becomes a card (extra.css); a cell then needs its column's name beside it. */
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll(".md-typeset table:not([class])")) {
    const names = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
    if (names.length < 3) continue;
    table.classList.add("wide");
    // A cell that is shown as a block is no cell any more to a screen reader, unless it says so.
    table.setAttribute("role", "table");
    for (const row of table.rows) {
      row.setAttribute("role", "row");
      [...row.cells].forEach((cell, number) => {
        cell.setAttribute("role", cell.tagName === "TH" ? "columnheader" : "cell");
        if (number > 0 && names[number]) cell.dataset.name = names[number];
      });
    }
  }
});
