// The stream of events. By fetch and not EventSource, which can send no API key.

const SILENCE = 6000; // ms without an event after which the daemon counts as away; one comes each second
const WAITS = [500, 1000, 2000, 4000, 8000];
const KEY = "stoker-api-key";

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  drop: () => sessionStorage.removeItem(KEY),
};

export function authorised(headers = {}) {
  return key.get() ? { ...headers, Authorization: `Bearer ${key.get()}` } : headers;
}

export async function failure(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The daemon answered ${response.status}.`;
  }
}

// Calls `on.event(name, data)`, `on.away(seconds, why)`, and `on.locked()` when a key is asked for; then it ends.
export class Stream {
  constructor(on) {
    this.on = on;
    this.tries = 0;
    this.stopped = true;
  }

  start() {
    if (!this.stopped) return;
    this.stopped = false;
    this.run();
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    this.abort?.abort();
    this.wake?.();
  }

  async run() {
    while (!this.stopped) {
      let why = "";
      try {
        if (await this.follow()) return;
      } catch (error) {
        why = error.words ?? "";
      }
      if (this.stopped) return;
      const wait = WAITS[Math.min(this.tries++, WAITS.length - 1)];
      this.on.away(wait / 1000, why);
      await new Promise((resolve) => { this.wake = resolve; this.timer = setTimeout(resolve, wait); });
    }
  }

  async follow() {
    this.abort = new AbortController();
    let watchdog = setTimeout(() => this.abort.abort(), SILENCE);
    try {
      const response = await fetch("/events", { headers: authorised(), signal: this.abort.signal, cache: "no-store" });
      if (response.status === 401) {
        this.stopped = true;
        this.on.locked();
        return true;
      }
      if (!response.ok) throw Object.assign(new Error(), { words: await failure(response) });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return false;
        clearTimeout(watchdog);
        watchdog = setTimeout(() => this.abort.abort(), SILENCE);
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        events.forEach((event) => this.tell(event));
      }
    } finally {
      clearTimeout(watchdog);
    }
  }

  tell(event) {
    const fields = Object.fromEntries(event.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
    if (!fields.event) return;
    this.tries = 0;
    this.on.event(fields.event, JSON.parse(fields.data));
  }
}
