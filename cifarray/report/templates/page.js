"use strict";
(() => {
  const tip = document.getElementById("tip");

  // Hover texts: <title> works without this script, but slowly.
  for (const title of document.querySelectorAll("svg.figure title")) {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  }
  const show = (text, event) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const x = Math.min(event.clientX + 14, innerWidth - box.width - 8);
    const below = event.clientY + 18;
    tip.style.left = `${Math.max(8, x)}px`;
    tip.style.top = `${below + box.height < innerHeight ? below : event.clientY - box.height - 12}px`;
  };

  // A trial that is pointed at lights up in every figure and in the table.
  let lit = null;
  const light = (trial) => {
    if (trial === lit) return;
    for (const element of document.querySelectorAll(".lit")) element.classList.remove("lit");
    lit = trial;
    document.body.classList.toggle("lighting", trial !== null);
    if (trial === null) return;
    for (const element of document.querySelectorAll(`[data-trial="${CSS.escape(trial)}"]`)) element.classList.add("lit");
  };

  // The cell of a confusion matrix under the pointer, in words.
  const matrices = new Map();
  for (const svg of document.querySelectorAll("[data-matrix]")) {
    const data = JSON.parse(svg.dataset.matrix);
    const size = data.names.length;
    const counts = new Map(data.counts.map(([row, column, count]) => [row * size + column, count]));
    const rows = new Array(size).fill(0);
    for (const [row, , count] of data.counts) rows[row] += count;
    matrices.set(svg, { ...data, size, counts, rows, cursor: svg.querySelector(".cursor") });
  }
  const cellText = (svg, event) => {
    const m = matrices.get(svg);
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const column = Math.floor((point.x - m.left) / m.cell);
    const row = Math.floor((point.y - m.top) / m.cell);
    const inside = row >= 0 && column >= 0 && row < m.size && column < m.size;
    m.cursor.setAttribute("visibility", inside ? "visible" : "hidden");
    if (!inside) return null;
    m.cursor.setAttribute("x", m.left + column * m.cell);
    m.cursor.setAttribute("y", m.top + row * m.cell);
    const count = m.counts.get(row * m.size + column) || 0;
    const share = m.rows[row] ? ` (${((100 * count) / m.rows[row]).toFixed(1)} %)` : "";
    const verb = row === column ? "recognized" : `taken for ${m.names[column]}`;
    return `${m.names[row]}\n${verb}: ${count} of ${m.rows[row]} rows${share}`;
  };

  document.addEventListener("pointermove", (event) => {
    const target = event.target instanceof Element ? event.target : document.body;
    light(target.closest("[data-trial]")?.dataset.trial ?? null);
    const svg = target.closest("[data-matrix]");
    for (const [other, m] of matrices) if (other !== svg) m.cursor.setAttribute("visibility", "hidden");
    const text = svg ? cellText(svg, event) : target.closest("[data-tip]")?.dataset.tip;
    if (text) show(text, event);
    else tip.hidden = true;
  });

  // Tables sort by the column that is clicked, or chosen with Enter.
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = text === "" ? NaN : Number(text.replaceAll(",", ""));
    return Number.isNaN(number) ? text.toLowerCase() : number;
  };
  const sort = (table, column) => {
    const head = table.tHead.rows[0].cells[column];
    const rows = [...table.tBodies[0].rows];
    const numeric = rows.some((row) => typeof valueOf(row, column) === "number");
    const first = numeric ? "descending" : "ascending";
    const second = numeric ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? second : first;
    for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    rows.sort((a, b) => {
      const x = valueOf(a, column);
      const y = valueOf(b, column);
      if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
      return sign * (x < y ? -1 : x > y ? 1 : 0);
    });
    table.tBodies[0].append(...rows);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      cell.tabIndex = 0;
      cell.addEventListener("click", () => sort(table, column));
      cell.addEventListener("keydown", (event) => {
        if (event.key === "Enter") sort(table, column);
      });
    });
  }

  addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("details")) fold.open = true;
  });
  document.documentElement.dataset.ready = "yes";
})();
