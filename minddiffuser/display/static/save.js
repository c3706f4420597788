// One picture of them all: what was shown, retrieved, preview and final, with what is known of them.

import { CARDS, eventLabel, guess, retrieved } from "./rooms.js";

const SIDE = 512;
const GAP = 16;
const [HEAD, FOOT] = [56, 64];

/** Draw a window's pictures side by side; returns a PNG. */
export async function composite(of, window) {
  const cards = CARDS.filter(([kind]) => kind !== "retrieved" || window.pictures.retrieved);
  const canvas = Object.assign(document.createElement("canvas"), {
    width: cards.length * (SIDE + GAP) + GAP, height: HEAD + SIDE + FOOT + GAP,
  });
  const context = canvas.getContext("2d");
  context.fillStyle = "#0c0d12";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const write = (words, x, y, size, colour, align = "left") => {
    Object.assign(context, { font: `${size}px system-ui, sans-serif`, fillStyle: colour, textAlign: align });
    context.fillText(words, x, y, SIDE);
  };
  const when = Number.isFinite(window.at) ? new Date(Date.now() - performance.now() + window.at).toISOString().slice(0, 19).replace("T", " ") : "";
  write([of.data, of.participant, of.name].filter(Boolean).join(" · "), GAP, 36, 22, "#eef0f6");
  write(`${window.id} · ${when} UTC`, canvas.width - GAP, 36, 18, "#a0a7ba", "right");
  const confidence = window.meta.confidence;
  const about = {
    original: eventLabel(window),
    retrieved: retrieved(window),
    preview: "stage 1",
    picture: [guess(window), Number.isFinite(confidence) && `confidence ${confidence.toFixed(2)}`].filter(Boolean).join(" · "),
  };
  for (const [i, [kind, title]] of cards.entries()) {
    const x = GAP + i * (SIDE + GAP);
    context.fillStyle = "#15171f";
    context.fillRect(x, HEAD, SIDE, SIDE);
    const picture = window.pictures[kind];
    if (picture) await paint(context, picture.blob, x, HEAD);
    else write("not known", x + SIDE / 2, HEAD + SIDE / 2, 20, "#a0a7ba", "center");
    write(title, x, HEAD + SIDE + 28, 22, "#eef0f6");
    write(about[kind], x, HEAD + SIDE + 54, 18, "#a0a7ba");
  }
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the browser made no PNG"))), "image/png");
  });
}

/** Draw a picture into a square, whole. */
async function paint(context, blob, x, y) {
  const image = await createImageBitmap(blob);
  const scale = SIDE / Math.max(image.width, image.height);
  const [width, height] = [image.width * scale, image.height * scale];
  context.drawImage(image, x + (SIDE - width) / 2, y + (SIDE - height) / 2, width, height);
  image.close();
}
