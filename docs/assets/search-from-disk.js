// Browsers start no workers for pages that are read from a disk. There the search runs in a hidden frame instead, which
// is given copies of messages later, as a worker is.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      this.inner = this.frame.contentWindow;
      this.inner.postMessage = (message) => this.deliver(this, message);
      const script = this.inner.document.createElement("script");
      script.src = new URL(url, location.href).href;
      this.started = new Promise((resolve) => (script.onload = resolve));
      this.inner.document.body.append(script);
    }
    postMessage(message) {
      this.started.then(() => this.deliver(this.inner, message));
    }
    deliver(receiver, message) {
      const data = structuredClone(message);
      setTimeout(() => receiver.onmessage && receiver.onmessage({ data }));
    }
    terminate() {
      this.frame.remove();
    }
  };
}
