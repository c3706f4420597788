// What a session needs before its first picture, each point ticked when it is there.

import { record } from "./charts.js";
import { count } from "./facts.js";

/** [what, whether it is there, words] of each point. */
export function points(of, broker) {
  const ingest = record(of?.metrics.ingest);
  const status = of?.status ?? {};
  const decoding = ["waiting", "running", "source-lost", "engine-lost"].includes(status.state);
  const streaming = ingest.samples > 0 || ["running", "engine-lost"].includes(status.state);
  const marks = Number.isFinite(ingest.events) ? ingest.events : 0;
  return [
    ["Broker", broker.connected, broker.connected ? "connected" : "not reached"],
    ["Bundle", decoding, decoding ? `loaded${status.config ? `: ${status.config}` : ""}` : "a session loads it: minddiffuser live"],
    ["Stream", streaming, streaming ? `${count(ingest.samples)} samples` : status.detail || "no samples yet: start the amplifier's program"],
    ["Markers", marks > 0, marks > 0 ? count(marks) : "none yet: start the program that shows pictures"],
  ];
}

/** Draw the list into a frame while there is nothing else to show there (`of` undefined: no session yet; null: not). */
export function drawChecklist(frame, of, broker) {
  const before = frame.querySelector(".checklist");
  if (of === null) {
    before?.remove();
    return;
  }
  const rows = points(of, broker);
  const words = JSON.stringify(rows);
  if (before?.dataset.shown === words) return;
  const list = document.createElement("ul");
  list.className = "checklist";
  list.dataset.shown = words;
  list.append(...rows.map(([what, there, detail]) => {
    const item = document.createElement("li");
    item.dataset.there = String(there);
    const mark = Object.assign(document.createElement("span"), { className: "tick", textContent: there ? "✓" : "·" });
    mark.setAttribute("aria-label", there ? "there" : "not there");
    mark.setAttribute("role", "img");
    item.append(mark, Object.assign(document.createElement("b"), { textContent: what }), Object.assign(document.createElement("span"), { textContent: detail }));
    return item;
  }));
  before?.remove();
  frame.append(list);
}
