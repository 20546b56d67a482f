// Sorts and filters the table of entries. Without JavaScript the table stands as it is.
"use strict";

const table = document.getElementById("entries");
const body = table.tBodies[0];
const rows = [...body.rows].filter((row) => row.dataset.track);
const search = document.getElementById("search");
const selects = [...document.querySelectorAll("#filters select")];
const count = document.getElementById("count");

// Numbers stand in data-value; texts are compared as people sort them.
function value(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
}

function compare(a, b, sign) {
  if (typeof a === "number") {
    // What has no number comes last, whichever way.
    return Number.isNaN(a) || Number.isNaN(b) ? Number.isNaN(a) - Number.isNaN(b) : sign * (a - b);
  }
  return sign * a.localeCompare(b, "en", { numeric: true });
}

function sortBy(header) {
  const column = header.cellIndex;
  const down = header.getAttribute("aria-sort") === "ascending";
  for (const other of header.parentElement.cells) {
    other.removeAttribute("aria-sort");
  }
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  rows.sort((a, b) => compare(value(a, column), value(b, column), down ? -1 : 1));
  body.append(...rows);
}

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const chosen = selects.every((s) => s.value === "" || row.dataset[s.name] === s.value);
    row.hidden = !(chosen && words.every((word) => text.includes(word)));
    shown += row.hidden ? 0 : 1;
  }
  count.textContent = `${shown} of ${rows.length} entries`;
}

for (const button of table.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}
search.addEventListener("input", filter);
for (const select of selects) {
  select.addEventListener("change", filter);
}
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("filters").hidden = false; // it does nothing without this script
filter();
