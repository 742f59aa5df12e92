"use strict";
// Keeps the numbers of a page up to date (server-sent events), draws its charts, and does its actions through the API.
// Whatever comes from the broker is set as text, never as HTML.
(() => {
  const KEPT = 90; // looks that charts show: three minutes
  const SHOWN_S = 60; // what a chart shows at the least
  const one = (selector, of = document) => of.querySelector(selector);
  const all = (selector, of = document) => [...of.querySelectorAll(selector)];
  const last = new Map(); // by queue, "" for all: the counts of the look before, and when that was
  const rates = new Map(); // by queue: series of [seconds, published, acked, failed]
  const ready = new Map(); // by queue: series of ready messages
  const charts = new Map();

  const count = (number) => number.toLocaleString("en");
  const rate = (number) => (number === null ? "–" : number >= 10 || number === 0 ? count(Math.round(number)) : number.toFixed(1));
  const span = (ms) => {
    if (ms < 1000) return ms ? `${Number(ms.toPrecision(3))} ms` : "0";
    const parts = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];
    let seconds = Math.floor(ms / 1000);
    const words = [];
    for (const [unit, name] of parts) {
      if (seconds >= unit || (words.length && name !== "s" && seconds)) { words.push(`${Math.floor(seconds / unit)}${name}`); seconds %= unit; }
      if (words.length === 2) break;
    }
    return words.join(" ");
  };
  const size = (bytes) => {
    for (const unit of ["B", "KiB", "MiB", "GiB"]) { if (bytes < 1024) return `${Number(bytes.toPrecision(3))} ${unit}`; bytes /= 1024; }
    return `${Number(bytes.toPrecision(3))} TiB`;
  };
  const clock = (seconds) => new Date(seconds * 1000).toTimeString().slice(0, 8);
  const set = (element, text) => { if (element && element.textContent !== text) element.textContent = text; };
  const shown = (name, value) => (name.endsWith("_bytes") ? size(value) : name.endsWith("_ms") ? span(value) : count(value));

  // -- what came in since the look before ---------------------------------------------------------

  const look = (name, counts, now) => {
    const before = last.get(name);
    last.set(name, [counts, now]);
    if (!before || now <= before[1]) return null;
    const made = {};
    for (const each of ["published", "acked", "failed"]) made[each] = Math.max(0, counts[each] - before[0][each]) / (now - before[1]);
    const series = rates.get(name) || [[], [], [], []];
    rates.set(name, series);
    [now, made.published, made.acked, made.failed].forEach((value, at) => { series[at].push(value); if (series[at].length > KEPT) series[at].shift(); });
    return made;
  };

  const spark = (row, name, value) => {
    const series = ready.get(name) || [];
    ready.set(name, series);
    series.push(value);
    if (series.length > KEPT) series.shift();
    const line = one(".spark polyline", row);
    if (!line || series.length < 2) return;
    const most = Math.max(...series, 1);
    line.setAttribute("points", series.map((each, at) => `${(100 * at) / (series.length - 1)},${19 - (18 * each) / most}`).join(" "));
  };

  const draw = () => {
    for (const place of all("[data-chart]")) {
      const name = place.dataset.chart === "overview" ? "" : place.dataset.chart;
      const series = rates.get(name);
      if (!series || typeof uPlot === "undefined") continue;
      let chart = charts.get(place);
      if (!chart) {
        const style = getComputedStyle(document.documentElement);
        const of = (variable) => style.getPropertyValue(variable).trim();
        const axis = { stroke: of("--soft"), grid: { stroke: of("--line"), width: 1 }, ticks: { stroke: of("--line"), width: 1 } };
        const times = (u, splits) => splits.map((each) => clock(each));
        const curve = (label, variable) => ({ label, stroke: of(variable), width: 2, points: { show: false }, value: (u, value) => (value === null ? "–" : rate(value)) });
        chart = new uPlot({
          width: place.clientWidth - 26, height: 170,
          axes: [{ ...axis, values: times, space: 90, incrs: [5, 10, 15, 30, 60, 120, 300] }, { ...axis, size: 60 }],
          scales: { x: { range: (u, low, high) => [Math.min(low, high - SHOWN_S), high] }, y: { range: (u, low, high) => [0, Math.max(1.1 * high, 1)] } },
          series: [{ label: "at", value: (u, value) => (value === null ? "–" : clock(value)) }, curve("published", "--accent"), curve("acked", "--good"), curve("failed", "--bad")],
        }, series, place);
        charts.set(place, chart);
      }
      chart.setData(series);
    }
  };

  // -- live -----------------------------------------------------------------------------------------

  const update = (value) => {
    const phase = one("#phase");
    set(phase, value.phase === "ready" ? "live" : value.phase);
    phase.className = `badge ${value.phase === "ready" ? "live" : "warning"}`;
    const now = Date.now() / 1000;
    if (value.overview) {
      const made = look("", value.overview.counted, now);
      for (const place of all("[data-live]")) {
        const [head, tail] = place.dataset.live.split(".");
        const found = head === "rate" ? made && made[tail] : tail ? value.overview[head][tail] : value.overview[head];
        if (head === "rate") set(place, rate(made ? found : null));
        else if (found >= 0) set(place, shown(tail || head, found));
      }
    }
    for (const row of value.queues || []) {
      const made = look(row.name, row.counts, now);
      for (const place of all(`[data-queue="${CSS.escape(row.name)}"]`)) {
        all("[data-count]", place).forEach((cell) => set(cell, count(row.counts[cell.dataset.count])));
        all("[data-rate]", place).forEach((cell) => set(cell, rate(made ? made[cell.dataset.rate] : null)));
        all("[data-span]", place).forEach((cell) => set(cell, row[cell.dataset.span] < 0 ? "–" : span(row[cell.dataset.span])));
        all("[data-oldest]", place).forEach((cell) => set(cell, span(row.oldest_ready_ms)));
        spark(place, row.name, row.counts.ready);
      }
    }
    const events = one("#events tbody");
    if (events) for (const event of value.events || []) events.prepend(line(event));
    draw();
  };

  const line = (event) => {
    const row = document.createElement("tr");
    const level = document.createElement("span");
    level.className = `badge ${event.level}`;
    level.textContent = event.level;
    const texts = [event.time, level, event.event, Object.entries(event.fields).map(([name, value]) => `${name}=${value}`).join("  ")];
    texts.forEach((text, at) => { const cell = document.createElement(at === 2 ? "th" : "td"); if (at === 0) cell.className = "time"; cell.append(text); row.append(cell); });
    return row;
  };

  let source = null;
  const listen = () => {
    if (source) source.close();
    const names = [...new Set(all("[data-queue]").map((each) => each.dataset.queue))].slice(0, 200);
    const table = one("#events");
    const after = table ? table.dataset.last : 0;
    source = new EventSource(`/api/v1/live?queues=${encodeURIComponent(names.join(","))}&after=${after}`);
    source.addEventListener("look", (message) => update(JSON.parse(message.data)));
    source.onerror = () => { const phase = one("#phase"); set(phase, "no answer"); phase.className = "badge gone"; };
  };

  // -- actions ----------------------------------------------------------------------------------------

  const say = (text, bad) => {
    const place = document.createElement("p");
    place.textContent = text;
    if (bad) place.className = "bad";
    one("#said").replaceChildren(place);
  };

  const bodyOf = (form) => {
    const fields = new FormData(form);
    if (form.dataset.fields === "settings") {
      // Only what was changed: what is sent counts as chosen, and goes before policies.
      const was = (field) => (field.type === "number" ? field.defaultValue : one("option[selected]", field)?.value);
      return Object.fromEntries([...fields].map(([name, value]) => [one(`[name="${name}"]`, form), value]).filter(([field, value]) => value !== was(field))
        .map(([field, value]) => [field.name, field.type === "number" ? Number(value) : value]));
    }
    if (form.dataset.fields === "message") {
      const [kind, text] = [fields.get("kind"), fields.get("body")];
      const made = {};
      if (kind === "json") made.json = JSON.parse(text);
      else if (kind === "bytes") made.base64 = btoa(String.fromCharCode(...new TextEncoder().encode(text)));
      else made[kind] = text;
      for (const name of ["key", "unique_key"]) if (fields.get(name)) made[name] = fields.get(name);
      for (const name of ["priority", "delay_ms"]) if (Number(fields.get(name))) made[name] = Number(fields.get(name));
      return made;
    }
    if (form.dataset.fields === "values") {
      const value = (name, text) => (one(`[name="${name}"]`, form).type === "number" ? Number(text) : { true: true, false: false }[text] ?? text);
      return Object.fromEntries([...fields].filter(([name, text]) => text !== "").map(([name, text]) => [name, name === "key" ? text : value(name, text)]));
    }
    return JSON.parse(form.dataset.body || "{}");
  };

  const told = (answer) => {
    if (answer.duplicate) return `It is there already, as ${answer.id}.`;
    if (answer.id) return `Stored as ${answer.id}.`;
    if (typeof answer.messages === "number") return `Done: ${count(answer.messages)} message${answer.messages === 1 ? "" : "s"}.`;
    return "Done.";
  };

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.dataset.api) return;
    event.preventDefault();
    if (form.dataset.ask && !window.confirm(form.dataset.ask)) return;
    const [method, path] = form.dataset.api.split(" ");
    try {
      const headers = { "content-type": "application/json", "x-minibroker-csrf": one("meta[name=csrf]").content };
      const body = method === "DELETE" ? undefined : JSON.stringify(bodyOf(form));
      const answer = await fetch(path, { method, headers, body });
      const value = await answer.json();
      if (!answer.ok) throw new Error(value.text);
      if (form.dataset.then) { sessionStorage.setItem("said", told(value)); location.assign(form.dataset.then); return; }
      // First: whoever reads that it is done may type the next one, which must not go with the old page.
      if (window.htmx) await Promise.allSettled([htmx.ajax("GET", location.href, { target: "#main", select: "#main", swap: "outerHTML" })]);
      say(told(value));
    } catch (error) {
      say(error.message, true);
    }
  });

  document.addEventListener("htmx:afterSettle", () => { charts.clear(); all("[data-chart] .uplot").forEach((each) => each.remove()); listen(); draw(); });

  const theme = (name) => { if (name) document.documentElement.dataset.theme = name; };
  theme(localStorage.getItem("theme"));
  one("#theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    localStorage.setItem("theme", dark ? "light" : "dark");
    theme(dark ? "light" : "dark");
    for (const chart of charts.values()) chart.destroy();
    charts.clear();
    draw();
  });
  window.addEventListener("resize", () => { for (const [place, chart] of charts) chart.setSize({ width: place.clientWidth - 26, height: 170 }); });
  if (sessionStorage.getItem("said")) { say(sessionStorage.getItem("said")); sessionStorage.removeItem("said"); }
  listen();
})();
