// The status page: events in, tables and charts out, and two buttons.
import { FirstToken, Speed } from "./page_charts.js";
import { Stream, authorised, failure, key } from "./page_stream.js";
import { addLines, showCountdown, showEnded, showFacts, showInHand, showMemory, showNotes, showPrefixes, showState } from "./page_view.js";
import { $, seconds, write } from "./page_words.js";

const UNSEEN = 30000; // ms after which a page that nobody sees stops watching

let token = "";
let generation = 0;
let retryAt = null;
let records = [];
let lastLine = 0;
let charts = null;
let hiddenSince = null;

function notice(text, tone = "") {
  $("notice").hidden = !text;
  $("notice").dataset.tone = tone;
  write("notice", text);
}

function linked(state, text) {
  $("link").dataset.state = state;
  write("link", text);
  document.body.classList.toggle("away", state === "away");
  for (const button of $("actions").children) button.disabled = state !== "on" || button.dataset.busy === "yes";
}

const told = {
  hello(data) {
    token = data.token;
    records = data.ended;
    write("model", data.model);
    write("base", `${data.http}/v1`);
    $("ask").hidden = true;
    $("facts").hidden = $("actions").hidden = $("live").hidden = false;
    charts ??= { speed: new Speed(), first: new FirstToken() };
    charts.speed.begin(data.decoded, data.prefilled);
    charts.first.begin();
    charts.first.add(records, data.now);
    lastLine = data.lines.at(-1)?.number ?? 0;
    addLines(data.lines, true);
    showEnded(records);
    linked("on", "live");
    if ($("notice").dataset.tone === "bad") notice("");
  },
  state(data) {
    generation = data.readiness.generation;
    const wait = data.readiness.retry_after;
    retryAt = wait === null ? null : Date.now() / 1000 + wait;
    showState(data, retryAt);
  },
  sample(data) {
    showFacts(data, generation);
    showInHand(data);
    showMemory(data);
    showPrefixes(data);
    showNotes(data);
    showCountdown(retryAt);
    write("now-decoded", `${data.decoded}`);
    write("now-prefilled", `${data.prefilled}`);
    // What came just before this page did is told twice.
    const ended = data.ended.filter((record) => !records.some((old) => old.number === record.number));
    const lines = data.lines.filter((line) => line.number > lastLine);
    if (ended.length) {
      records = [...records, ...ended].slice(-200);
      showEnded(records);
    }
    if (lines.length) {
      lastLine = lines.at(-1).number;
      addLines(lines, false);
    }
    charts.speed.add(data.decoded, data.prefilled);
    charts.first.add(ended, data.now);
  },
  bye() {
    linked("away", "the daemon has ended");
  },
};

const stream = new Stream({
  event: (name, data) => told[name]?.(data),
  away(wait, why) {
    linked("away", `the daemon is away; trying again in ${wait} s`);
    if (why) notice(why, "bad");
  },
  locked() {
    const tried = key.get();
    key.drop();
    $("facts").hidden = $("actions").hidden = $("live").hidden = true;
    $("ask").hidden = false;
    $("hero").dataset.tone = "idle";
    write("title", "Locked");
    write("detail", "This daemon was configured with API keys.");
    linked("off", "locked");
    if (tried) notice("That key is not one of this daemon's.", "bad");
    $("key").focus();
  },
});

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value.trim());
  $("key").value = "";
  notice("");
  stream.start();
});

async function act(button, path, doing, done) {
  button.dataset.busy = "yes";
  button.disabled = true;
  notice(doing);
  try {
    const response = await fetch(path, { method: "POST", headers: authorised({ "X-Stoker-Token": token }) });
    if (response.ok) notice(done(await response.json()), "good");
    else notice(await failure(response), "bad");
  } catch {
    notice("The daemon did not answer; it may be away.", "bad");
  }
  button.dataset.busy = "no";
  button.disabled = $("link").dataset.state !== "on";
}

function warmed(report) {
  const tokens = report.prefixes.reduce((sum, prefix) => sum + prefix.tokens_warm, 0);
  const why = report.reason ? ` (${report.reason})` : "";
  return `Rewarm ${report.outcome}${why}: ${report.prefixes.length} prefixes, ${tokens.toLocaleString("en")} tokens, ${seconds(report.seconds)}.`;
}

$("rewarm").addEventListener("click", (event) => act(event.currentTarget, "/actions/rewarm", "Warming again; requests are served meanwhile.", warmed));
$("restart").addEventListener("click", (event) => act(event.currentTarget, "/actions/restart", "Asking for a restart.", () => "A new worker takes over; no request is lost, new ones wait for it."));

document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenSince);
  if (!document.hidden && $("ask").hidden) stream.start();
  if (document.hidden) hiddenSince = setTimeout(() => { stream.stop(); linked("off", "not live"); }, UNSEEN);
});

stream.start();
