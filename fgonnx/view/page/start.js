// A page opened from a folder may not load modules: it says what to do instead.
if (location.protocol === "file:" && !globalThis.fgonnxFiles) {
  addEventListener("DOMContentLoaded", () => {
    document.getElementById("loading").hidden = true;
    const error = document.getElementById("error");
    error.textContent =
      "Browsers do not load a page of several files from a folder. Open it with 'fgonnx view MODEL --serve' or " +
      "'python -m http.server' in its folder, or write it as one file with --single-file.";
    error.hidden = false;
  });
}
