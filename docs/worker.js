/* The search of the site runs in a worker, which browsers refuse to pages from a folder. There, a hidden frame takes its place. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      document.body.append(frame);
      const inside = frame.contentWindow;
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.__index = window.__index;
      this.started = new Promise((resolve) => {
        const script = inside.document.createElement("script");
        script.src = new URL(url, location).href;
        script.onload = resolve;
        inside.document.body.append(script);
      });
      this.inside = inside;
    }
    postMessage(data) {
      this.started.then(() => this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data })));
    }
    terminate() {}
  };
}
