// Where pictures come from: a file, a drop, the clipboard, the camera, the gallery.

import { addressOf, bytesOf } from "./files.js";
import { element } from "./words.js";

/** Wire the ways in; `take` gets a blob and its name, `refuse` a sentence. */
export function listen({ open, file, paste, drop }, take, refuse) {
  open.addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    if (file.files[0]) take(file.files[0], file.files[0].name);
    file.value = "";
  });
  document.addEventListener("paste", (event) => {
    const [found] = event.clipboardData?.files ?? [];
    if (found) take(found, found.name || "pasted");
  });
  paste.addEventListener("click", async () => {
    try {
      for (const item of await navigator.clipboard.read()) {
        const type = item.types.find((name) => name.startsWith("image/"));
        if (type) return take(await item.getType(type), "pasted");
      }
      refuse("There is no picture in the clipboard.");
    } catch {
      refuse("The browser does not give the clipboard to a button: press Ctrl+V or Cmd+V instead.");
    }
  });
  let depth = 0;
  const inside = (change) => {
    depth = Math.max(0, depth + change);
    drop.hidden = depth === 0;
  };
  addEventListener("dragenter", () => inside(1));
  addEventListener("dragleave", () => inside(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    inside(-depth);
    const [found] = event.dataTransfer.files;
    if (found) take(found, found.name);
    else refuse("What was dropped is no file.");
  });
}

/** Fill the gallery; returns a function that marks the chosen picture, by its name. */
export function gallery(list, samples, take) {
  const buttons = samples.map(({ file, name, type }) => {
    const image = element("img", { src: addressOf(file, type), alt: "", loading: "lazy", width: 62, height: 62 });
    const button = element("button", { type: "button", title: name, ariaLabel: `Sample ${name}` }, image);
    button.addEventListener("click", async () => take(new Blob([await bytesOf(file)], { type }), name));
    return button;
  });
  list.replaceChildren(...buttons.map((button) => element("li", {}, button)));
  list.hidden = buttons.length === 0;
  return (name) =>
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(samples[i].name === name)));
}

/** The camera: frame after frame, each when the one before is explained. */
export class Camera {
  constructor(button, video, frame, refuse) {
    Object.assign(this, { button, video, frame, refuse });
    button.addEventListener("click", () => (this.stream ? this.stop() : this.start()));
  }

  async start() {
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
    } catch {
      this.refuse("There is no camera, or the browser does not give it to this page.");
      return;
    }
    this.mark();
    this.video.srcObject = this.stream;
    await this.video.play();
    while (this.stream) {
      await this.frame(this.video);
      await new Promise((done) => requestAnimationFrame(done));
    }
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.mark();
  }

  mark() {
    this.button.setAttribute("aria-pressed", String(Boolean(this.stream)));
    this.button.textContent = this.stream ? "Stop camera" : "Camera";
  }
}
