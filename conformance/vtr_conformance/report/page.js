"use strict";
const rows = [...document.querySelectorAll("#results tbody tr")];
const filters = document.getElementById("filters");
const shown = document.getElementById("shown");
const texts = rows.map((row) => row.textContent.toLowerCase());

function apply() {
  const { status, stage, host, words } = filters.elements;
  const wanted = words.value.toLowerCase();
  let count = 0;
  rows.forEach((row, place) => {
    const state = row.dataset.s;
    const fits =
      (status.value === "all" || status.value === state || (status.value === "open" && state !== "pass")) &&
      (!stage.value || row.cells[1].textContent === stage.value) &&
      (!host.value || row.cells[2].textContent === host.value) &&
      texts[place].includes(wanted);
    row.hidden = !fits;
    count += fits;
  });
  shown.textContent = `${count} of ${rows.length} results`;
}

function offer(name, column) {
  const values = new Set(rows.map((row) => row.cells[column].textContent));
  for (const value of values) filters.elements[name].add(new Option(value, value));
}

offer("stage", 1);
offer("host", 2);
filters.hidden = false;
filters.addEventListener("input", apply);
filters.addEventListener("submit", (event) => event.preventDefault());
apply();
