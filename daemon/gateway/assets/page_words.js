// Numbers in words, and elements out of text. Text only: nothing here reads markup.

const NUMBER = new Intl.NumberFormat("en");

export const $ = (id) => document.getElementById(id);
export const number = (value) => NUMBER.format(value);

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 9.995) return `${value.toFixed(2)} s`;
  return value < 120 ? `${value.toFixed(1)} s` : duration(value);
}

export function duration(value) {
  const s = Math.max(0, Math.round(value));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const step = Math.min(4, Math.floor(Math.log2(Math.max(1, value)) / 10));
  const scaled = value / 1024 ** step;
  return `${step && scaled < 10 ? scaled.toFixed(1) : Math.round(scaled)} ${["B", "KiB", "MiB", "GiB", "TiB"][step]}`;
}

export function clock(unix) {
  const at = new Date(unix * 1000);
  const time = at.toLocaleTimeString("en-GB");
  return Date.now() - at < 43200000 ? time : `${at.toLocaleDateString("en-CA")} ${time}`;
}

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export const cell = (text, name = "") => element("td", { class: name }, `${text}`);

export function marked(text, tone) {
  return element("td", { "data-tone": tone }, element("span", { class: "mark", "aria-hidden": "true" }), text);
}

export function empty(columns, text) {
  return element("tr", {}, element("td", { class: "empty", colspan: columns }, text));
}

export function write(id, text) {
  const target = $(id);
  if (target.textContent !== text) target.textContent = text; // an unchanged live region is not read out again
}
