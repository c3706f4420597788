// Words and numbers on the page.

export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

export function milliseconds(value) {
  if (!Number.isFinite(value)) return "–";
  return value >= 9995 ? `${(value / 1000).toFixed(1)} s` : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

export const count = (value) => (Number.isFinite(value) ? value.toLocaleString("en") : "–");

/** Fill a description list with [term, value, title?, class?]. */
export function facts(list, rows) {
  const wanted = JSON.stringify(rows);
  if (list.dataset.shown === wanted) return;
  list.dataset.shown = wanted;
  list.replaceChildren(...rows.map(([term, value, title, kind]) => {
    const row = document.createElement("div");
    if (kind) row.className = kind;
    if (title) row.title = title;
    row.append(Object.assign(document.createElement("dt"), { textContent: term }), Object.assign(document.createElement("dd"), { textContent: value }));
    return row;
  }));
}
