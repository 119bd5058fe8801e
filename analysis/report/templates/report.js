"use strict";
// Sorts a table by the column whose header button is pressed: once ascending, again descending.
// Cells without a value stay last either way; equal rows keep their order.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "ascending";
      const numeric = header.classList.contains("number");
      const body = table.tBodies[0];
      const value = (row) => {
        const raw = row.cells[column].dataset.sort;
        return raw === undefined ? null : numeric ? Number(raw) : raw;
      };
      const compare = (a, b) => (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
      const rows = [...body.rows].map((row) => ({ row, key: value(row) }));
      rows.sort((a, b) => {
        if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
        return down ? compare(b.key, a.key) : compare(a.key, b.key);
      });
      body.append(...rows.map((item) => item.row));
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      document.getElementById("sorted").textContent =
        `${document.getElementById(table.getAttribute("aria-labelledby")).textContent}: sorted by ${header.textContent}, ${down ? "descending" : "ascending"}`;
    });
  });
}
// On paper nothing can be opened by hand.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => (d.open = true)));
