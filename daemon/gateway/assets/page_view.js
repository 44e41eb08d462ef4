// Events into the page's tables and figures.
import { $, bytes, cell, clock, duration, element, empty, marked, number, seconds, write } from "./page_words.js";

const ENDED_SHOWN = 8;
const LINES_SHOWN = 120;
const TONES = { starting: "busy", loading: "busy", warming: "busy", stopping: "idle", backoff: "care", failed: "bad", down: "idle" };
const OUTCOMES = { served: "good", failed: "bad", cancelled: "idle" };
const SEVERITIES = { warning: "care", error: "bad", critical: "bad" };

const toneOf = (span) => (span.phase === "ready" ? (span.warm ? "good" : "care") : TONES[span.phase] ?? "idle");

export function showState({ readiness, spans, headline }, retryAt) {
  $("hero").dataset.tone = headline.tone;
  write("title", headline.title);
  document.title = `Stoker: ${headline.title}`;
  write("detail", headline.detail);
  showCountdown(retryAt);
  showProgress(readiness.progress);
  const heir = readiness.successor;
  $("successor").hidden = !heir && !readiness.replacement_failed;
  write("successor", heir ? `Generation ${heir.generation} is being prepared to take over (${heir.phase}${share(heir.progress)}).` : readiness.replacement_failed ? `The last replacement came to nothing: ${readiness.replacement_failed}` : "");
  showPhases(spans);
}

export function showCountdown(retryAt) {
  if (retryAt) write("detail", $("detail").textContent.replace(/ ?Next try in .*|$/, ` Next try in ${Math.max(0, Math.round(retryAt - Date.now() / 1000))} s.`).trim());
}

const share = (progress) => (progress?.total ? `, ${Math.floor((100 * progress.done) / progress.total)} %` : "");

function showProgress(progress) {
  const shown = progress && progress.total > 0;
  $("progress").hidden = !shown;
  if (!shown) return;
  const bar = $("progress").querySelector("progress");
  bar.max = progress.total;
  bar.value = progress.done;
  const unit = { warm: " tokens", prefill: " tokens", download: " bytes" }[progress.stage] ?? "";
  write("progress-text", `${progress.name ? `${progress.name}: ` : ""}${number(progress.done)} of ${number(progress.total)}${unit}`);
}

function showPhases(spans) {
  const lasted = spans.map((span, place) => (spans[place + 1]?.since ?? Date.now() / 1000) - span.since);
  $("strip").replaceChildren(...spans.slice(-24).map((span, place, shown) => {
    const part = element("span", { "data-tone": toneOf(span) });
    part.style.flexGrow = 1 + Math.log2(1 + Math.max(0, lasted[spans.length - shown.length + place]));
    return part;
  }));
  $("phases").replaceChildren(...spans.map((span, place) => element("tr", {},
    cell(clock(span.since)),
    marked(span.phase === "ready" && !span.warm ? "ready, not warm" : span.phase, toneOf(span)),
    cell(span.generation || "–", "n more"),
    cell(place === spans.length - 1 ? "now" : seconds(lasted[place]), "n"),
    cell(span.cause ?? "", "grow"))).reverse());
}

export function showFacts(sample, generation) {
  const { requests } = sample;
  const facts = { Generation: generation || "–", "Daemon up": duration(sample.uptime), Served: number(requests.served), Failed: number(requests.failed), Cancelled: number(requests.cancelled), Resumed: number(requests.resumed) };
  const list = $("facts");
  for (const [name, value] of Object.entries(facts)) {
    const id = `fact-${name.replace(" ", "-")}`;
    if (!$(id)) list.append(element("div", {}, element("dt", {}, name), element("dd", { id })));
    write(id, `${value}`);
  }
  write("counts", `${requests.running} running, ${requests.waiting} waiting`);
}

export function showInHand(sample) {
  const rows = sample.live.map((row) => element("tr", {},
    cell(row.number, "n more"),
    marked(row.stage === "waiting" ? `waiting, ${row.ahead} ahead` : row.resumed ? `${row.stage}, resumed` : row.stage, { waiting: "care", prefill: "busy", decoding: "good" }[row.stage]),
    prefillCell(row),
    cell(row.prompt_tokens ? number(row.prompt_tokens) : "–", "n more"),
    cell(row.prompt_tokens ? number(row.cached_tokens) : "–", "n more"),
    cell(number(row.completion_tokens), "n"),
    cell(row.seconds.toFixed(1), "n more")));
  if (!rows.length) rows.push(empty(7, "No requests now."));
  if (sample.hidden) rows.push(empty(7, `and ${sample.hidden} more`));
  $("inhand").replaceChildren(...rows);
}

function prefillCell(row) {
  if (row.stage !== "prefill" || !row.total) return cell(row.stage === "decoding" ? "done" : "–", "grow");
  const label = `Prefill of request ${row.number}: ${row.done} of ${row.total} tokens`;
  return element("td", { class: "grow" }, element("progress", { max: row.total, value: row.done, "aria-label": label, title: label }));
}

export function showEnded(records) {
  const rows = records.slice(-ENDED_SHOWN).reverse().flatMap((record) => {
    const rate = record.decoding > 0 ? ((record.completion_tokens - 1) / record.decoding).toFixed(1) : "–";
    const row = element("tr", { class: record.cause ? "has-cause" : "" },
      cell(record.number, "n more"),
      marked(record.resumed ? `${record.outcome}, resumed` : record.outcome, OUTCOMES[record.outcome]),
      cell(seconds(record.first_token), "n"),
      cell(rate, "n"),
      cell(number(record.prompt_tokens), "n more"),
      cell(number(record.cached_tokens), "n more"),
      cell(number(record.completion_tokens), "n"),
      cell(record.seconds.toFixed(1), "n more"));
    return record.cause ? [row, element("tr", {}, cell("", "more"), element("td", { class: "cause", colspan: 7 }, record.cause))] : [row];
  });
  $("ended").replaceChildren(...(rows.length ? rows : [empty(8, "None has ended yet.")]));
}

export function showMemory(sample) {
  const bar = (name, value, limit) => {
    if (value === undefined) return [];
    const label = `${name}: ${bytes(value)} of ${bytes(limit)}`;
    const fill = element("span", { "data-tone": value > 0.95 * limit ? "care" : "idle" });
    fill.style.width = `${Math.min(100, (100 * value) / Math.max(1, limit))}%`;
    const meter = element("div", { class: "track", role: "meter", "aria-valuemin": 0, "aria-valuemax": limit, "aria-valuenow": value, "aria-valuetext": label, "aria-label": name }, fill);
    return [element("div", {}, element("dt", {}, name), element("dd", {}, `${bytes(value)} of ${bytes(limit)}`), element("dd", {}, meter))];
  };
  $("meters").replaceChildren(
    ...bar("Prefixes in memory", sample.cache?.bytes, sample.cache?.limit_bytes),
    ...bar("Prefixes on disk", sample.store?.bytes, sample.store?.budget_bytes));
  const lines = [["Worker process", bytes(sample.memory_bytes)], ["Worker's pid", sample.worker_pid ?? "–"], ["Worker up", sample.worker_uptime === null ? "–" : duration(sample.worker_uptime)]];
  if (sample.cache) lines.push(["Cache hits, misses", `${number(sample.cache.hits)}, ${number(sample.cache.misses)}`], ["Evicted", number(sample.cache.evictions)]);
  if (sample.store) lines.push(["Stored, restored", `${sample.store.entries}, ${sample.store.restored}`], ["Set aside", sample.store.quarantined]);
  $("worker").replaceChildren(...lines.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, `${value}`))));
}

export function showPrefixes(sample) {
  const rows = sample.prefixes.flatMap((prefix) => {
    const whole = prefix.tokens === prefix.tokens_warm;
    const row = element("tr", { class: prefix.note ? "has-cause" : "" },
      cell(prefix.name, "grow"),
      cell(whole ? number(prefix.tokens) : `${number(prefix.tokens_warm)} of ${number(prefix.tokens)}`, "n"),
      marked(prefix.source, whole && prefix.tokens ? "good" : "care"),
      cell(prefix.seconds.toFixed(2), "n"));
    return prefix.note ? [row, element("tr", {}, element("td", { class: "cause", colspan: 4 }, prefix.note))] : [row];
  });
  $("prefixes").replaceChildren(...(rows.length ? rows : [empty(4, "None was warmed.")]));
  write("background", sample.background ? `warming ${sample.background} in background` : "");
}

export function showNotes(sample) {
  const all = [...sample.notes, ...(sample.store?.notes ?? []), ...sample.last_words.slice(-6)];
  $("notes").hidden = !all.length;
  $("notes").replaceChildren(...all.map((note) => element("li", {}, note)));
}

export function addLines(lines, anew) {
  const box = $("log-box");
  const atEnd = anew || box.scrollTop + box.clientHeight >= box.scrollHeight - 24;
  if (anew) $("log").replaceChildren();
  $("log").append(...lines.map((line) => element("tr", { "data-tone": SEVERITIES[line.level] },
    cell(clock(line.at), "at"), cell(line.level, "level"), cell(line.event), cell(line.facts))));
  while ($("log").children.length > LINES_SHOWN) $("log").firstChild.remove();
  if (!$("log").children.length) return;
  if (atEnd) box.scrollTop = box.scrollHeight;
}
