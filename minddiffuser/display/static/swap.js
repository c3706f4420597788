// Pictures change in step: those of one window are decoded first, and then stand there together.

const FADE_MS = 80;
/** Kinds of pictures of a window, in the order in which they come. */
export const KINDS = ["original", "retrieved", "preview", "picture"];

/** Decode a picture; null where it is none after all. */
async function decoded({ url, sha256 }) {
  const image = new Image();
  image.src = url;
  image.dataset.sha256 = sha256;
  try {
    await image.decode();
    return image;
  } catch {
    return null;
  }
}

/** Put a picture into a frame, over the one that is there; without one, what there is to say. */
export function put(frame, image, words, fade = true) {
  const before = [...frame.querySelectorAll("img")];
  const fades = fade && image && before.length > 0 && !document.hidden;
  for (const old of before) {
    old.classList.add("leaving");
    old.alt = "";
    if (!fades) old.remove();
  }
  const empty = frame.querySelector(".empty");
  if (empty) empty.textContent = image ? "" : words;
  if (!image) return;
  image.alt = words;
  if (fades) {
    image.className = "arriving";
    setTimeout(() => {
      image.classList.remove("arriving");
      for (const old of before) old.remove();
    }, FADE_MS);
  }
  frame.append(image);
}

/**
 * The one place where a window's pictures go on the page. `put(images, window)` is called with all of them decoded
 * ({kind: image}, null for one that is broken), at once and never for a window that a newer one has passed.
 */
export class Stage {
  constructor(put) {
    this.put = put;
    this.standing = null; // what stands, as text
    this.wanted = null;
    this.busy = false;
  }

  /** Show a window, or nothing (null). */
  show(window) {
    this.wanted = window && { ...window, pictures: { ...window.pictures } };
    if (!this.busy) this.#follow();
  }

  async #follow() {
    this.busy = true;
    while (named(this.wanted) !== this.standing) {
      const window = this.wanted;
      const images = {};
      await Promise.all(KINDS.map(async (kind) => {
        const picture = window?.pictures[kind];
        if (picture) images[kind] = await decoded(picture);
      }));
      this.standing = named(window);
      this.put(images, window);
    }
    this.busy = false;
  }
}

const named = (window) => window && `${window.key} ${KINDS.map((kind) => window.pictures[kind]?.sha256).join(" ")}`;
