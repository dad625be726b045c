// The page: asks for totals each second, and shows what has changed between two answers.
// All text from the proxy is set as text, never as markup.

import { Chart, element } from "./charts.js";

const OVERVIEW_MS = 1000;
const DETAILS_MS = 3000;
const PATIENCE_MS = 5000;
const SPAN_MS = 5 * 60000;

const $ = (id) => document.getElementById(id);
const set = (id, text) => {
  const there = typeof id === "string" ? $(id) : id;
  if (there.textContent !== text) there.textContent = text;
};
const state = (place, value) => {
  if (place.dataset.state !== value) place.dataset.state = value;
};

// ---- how things are written

function count(value) {
  if (!Number.isFinite(value)) return "–";
  for (const [limit, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (value >= limit) return `${short(value / (limit === 1e4 ? 1e3 : limit))}${unit}`;
  }
  return short(value);
}

const short = (value) => (value >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : value.toPrecision(value >= 10 ? 3 : 2));

function bytes(value) {
  if (!Number.isFinite(value)) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let place = 0;
  while (value >= 1024 && place < units.length - 1) [value, place] = [value / 1024, place + 1];
  return `${place ? short(value) : Math.round(value)} ${units[place]}`;
}

function duration(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms === 0) return "0 ms";
  if (ms < 1) return `${short(ms * 1000)} µs`;
  if (ms < 1000) return `${short(ms)} ms`;
  if (ms < 120000) return `${short(ms / 1000)} s`;
  return age(ms);
}

function age(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([length]) => seconds >= length);
  if (first < 0) return "0 s";
  const text = [];
  let rest = seconds;
  for (const [length, unit] of parts.slice(first, first + 2)) {
    if (rest >= length) text.push(`${Math.floor(rest / length)} ${unit}`);
    rest %= length;
  }
  return text.join(" ");
}

// ---- what follows from two answers

const difference = (now, then) => now.map((value, index) => value - then[index]);

// What a share of the durations does not exceed, in milliseconds, interpolated within its bucket.
function quantile(buckets, bounds, share) {
  const total = buckets.at(-1);
  if (!(total > 0)) return null;
  const rank = share * total;
  const place = buckets.findIndex((below) => below >= rank);
  if (place >= bounds.length) return bounds.at(-1) / 1000;
  const [lower, below] = place ? [bounds[place - 1], buckets[place - 1]] : [0, 0];
  return (lower + (bounds[place] - lower) * ((rank - below) / (buckets[place] - below))) / 1000;
}

function rates(now, then) {
  const seconds = (now.taken_at - then.taken_at) / 1000;
  const per = (pick) => Math.max(0, pick(now.totals) - pick(then.totals)) / seconds;
  const routes = {};
  for (const route of ["primary", "replica", "local"]) routes[route] = per((totals) => totals.routes[route] ?? 0);
  const earlier = new Map(then.totals.reasons.map(([route, reason, total]) => [`${route} ${reason}`, total]));
  return {
    routes,
    all: routes.primary + routes.replica + routes.local,
    transactions: per((totals) => totals.transactions),
    errors: per((totals) => totals.own_errors + totals.server_errors),
    sent: per((totals) => totals.sent_bytes),
    latency: difference(now.totals.latency, then.totals.latency),
    reasons: now.totals.reasons.map(([route, reason, total]) => ({
      route, reason, total, rate: Math.max(0, total - (earlier.get(`${route} ${reason}`) ?? 0)) / seconds,
    })),
    queries: (cluster, backend) => {
      const of = (picture) => picture.clusters.find(({ name }) => name === cluster)?.backends.find(({ name }) => name === backend)?.queries;
      return Math.max(0, of(now) - of(then)) / seconds;
    },
  };
}

// ---- rows that are kept while their key is, so that a selection and the scroll position stay

function rows(place, items, keyOf, make, fill) {
  const there = new Map([...place.children].map((row) => [row.dataset.key, row]));
  let next = place.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let row = there.get(key);
    if (!row) {
      row = make(item);
      row.dataset.key = key;
    }
    if (row === next) next = next.nextElementSibling;
    else place.insertBefore(row, next);
    fill(row, item);
  }
  // Whatever was placed stands in front.
  while (next) {
    const rest = next;
    next = next.nextElementSibling;
    rest.remove();
  }
}

function makeRow(cells) {
  const row = document.createElement("tr");
  for (const cell of cells) {
    const attributes = cell.startsWith("#") ? { class: "number", "data-label": cell.slice(1) } : { class: cell };
    element(row, "td", attributes);
  }
  return row;
}

// ---- the parts of the page

function showHeader(now) {
  const { ready, problems, warnings } = now.readiness;
  const troubled = now.clusters.flatMap(({ backends }) => backends).filter((backend) => condition(backend)[0] !== "good");
  const isWell = warnings.length === 0 && troubled.length === 0;
  const phase = $("phase");
  if (!ready) set(phase, now.phase === "serving" ? "■ not ready" : `■ ${now.phase}`);
  else set(phase, isWell ? "● serving" : warnings.length ? "▲ serving, degraded" : `▲ serving, ${troubled.length} ${troubled.length === 1 ? "server" : "servers"} not healthy`);
  state(phase, !ready ? "bad" : isWell ? "good" : "warn");
  set("version", `version ${now.version}`);
  set("uptime", `up ${age(now.taken_at - now.started_at)}`);
  const said = [...problems, ...warnings];
  for (const [database, isPaused, isDisabled] of now.held) {
    if (isPaused) said.push(`database ${database} is paused`);
    if (isDisabled) said.push(`database ${database} refuses new clients`);
  }
  const list = $("problems");
  list.hidden = said.length === 0;
  state(list, problems.length ? "bad" : "warn");
  rows(list, said, (text) => text, () => document.createElement("li"), (row, text) => set(row, text));
}

function showNumbers(now, rate) {
  const { clients } = now;
  set("clients", `${count(clients.connected)} of ${count(clients.limit)}`);
  set("client-states", `${count(clients.active)} active, ${count(clients.idle)} idle`);
  const waiting = $("waiting");
  set(waiting, count(clients.waiting));
  state(waiting, clients.waiting > 0 ? "warn" : "");
  if (!rate) return;
  set("qps", count(rate.all));
  set("tps", count(rate.transactions));
  set("replica-share", rate.all > 0 ? `${Math.round((100 * rate.routes.replica) / rate.all)} %` : "–");
  set("p99", duration(quantile(rate.latency, now.bounds_us, 0.99) ?? NaN));
  set("sent", `${bytes(rate.sent)}/s`);
  const errors = $("errors");
  set(errors, count(rate.errors));
  state(errors, rate.errors > 0 ? "bad" : "");
}

// A server's condition in words; colour and sign only repeat it.
function condition(backend) {
  if (backend.health === "down") return ["bad", "■ down"];
  if (backend.health === "unknown") return ["warn", "▲ not seen yet"];
  if (backend.breaker === "open") return ["bad", "■ breaker open"];
  if (backend.is_drained) return ["warn", "▲ drained"];
  if (backend.breaker === "half_open") return ["warn", "▲ being tried"];
  if (backend.role === "replica" && !backend.within_max_lag) return ["warn", "▲ lagging"];
  return ["good", "● healthy"];
}

const CARD_FIELDS = ["Replay lag", "Batches/s", "In flight", "Connections", "Weight", "Timeline"];

function makeCard() {
  const card = document.createElement("article");
  card.className = "card";
  const title = element(card, "div", { class: "title" });
  element(title, "h3");
  element(title, "span", { class: "role" });
  element(title, "span", { class: "badge" });
  element(card, "p", { class: "address" });
  const list = element(card, "dl");
  for (const name of CARD_FIELDS) {
    const pair = element(list, "div");
    element(pair, "dt", {}, name);
    element(pair, "dd");
  }
  element(card, "p", { class: "error" });
  return card;
}

function fillCard(card, backend, now, queries) {
  const [level, words] = condition(backend);
  state(card, level);
  card.dataset.backend = backend.name;
  card.dataset.role = backend.role ?? "unknown";
  card.setAttribute("aria-label", `${backend.name}, ${backend.role ?? "role unknown"}, ${words.slice(2)}`);
  set(card.querySelector("h3"), backend.name);
  set(card.querySelector(".role"), backend.role ?? "role unknown");
  const badge = card.querySelector(".badge");
  set(badge, words);
  state(badge, level);
  const since = backend.since === null ? "" : ` · ${age(now.taken_at - backend.since)}`;
  set(card.querySelector(".address"), `${backend.host}:${backend.port}${since}`);
  const isReplica = backend.role === "replica";
  const lag = !isReplica || backend.health !== "up" || backend.lag_ms === null ? "–" : duration(backend.lag_ms);
  const weight = backend.weight === backend.effective_weight ? `${backend.weight}` : `${short(backend.effective_weight)} of ${backend.weight}`;
  const values = [lag, count(queries), count(backend.in_flight), `${backend.in_use} + ${backend.idle} idle`, weight, `${backend.timeline || "–"}`];
  card.querySelectorAll("dd").forEach((place, index) => set(place, values[index]));
  card.querySelector("dd").title = isReplica && backend.lag_bytes !== null ? bytes(backend.lag_bytes) : "";
  const error = card.querySelector(".error");
  error.hidden = backend.last_error === null;
  set(error, backend.last_error === null ? "" : `${level === "good" ? "Last error: " : ""}${backend.last_error}`);
}

function showTopology(now, rate) {
  const make = () => {
    const cluster = document.createElement("div");
    cluster.className = "cluster";
    const title = element(cluster, "h2");
    element(title, "span", { class: "cluster-name" });
    element(title, "span", { class: "badge" });
    element(cluster, "div", { class: "cards" });
    return cluster;
  };
  rows($("topology"), now.clusters, ({ name }) => name, make, (place, cluster) => {
    set(place.querySelector(".cluster-name"), `Cluster ${cluster.name}`);
    const badge = place.querySelector("h2 .badge");
    const words = cluster.is_split ? "■ split: two primaries" : cluster.primary ? "" : "■ no primary";
    set(badge, words);
    badge.hidden = words === "";
    state(badge, "bad");
    const fill = (card, backend) => fillCard(card, backend, now, rate ? rate.queries(cluster.name, backend.name) : NaN);
    rows(place.querySelector(".cards"), cluster.backends, ({ name }) => name, makeCard, fill);
  });
}

function showPools(now) {
  const make = () => {
    const row = makeRow(["name", "", "#in use", "#waiting"]);
    const bar = element(row.children[1], "div", { class: "bar", role: "img" });
    element(bar, "i", { class: "used" });
    element(bar, "i", { class: "idle" });
    element(row.children[0], "span");
    row.children[0].append(" ");
    element(row.children[0], "small");
    return row;
  };
  const body = $("pools").tBodies[0];
  const key = (pool) => JSON.stringify([pool.database, pool.user, pool.cluster, pool.backend]);
  rows(body, now.pools, key, make, (row, pool) => {
    const [name, track, used, waiting] = row.children;
    set(name.children[0], pool.user === pool.database ? pool.database : `${pool.database} as ${pool.user}`);
    set(name.children[1], `on ${pool.backend}`);
    const bar = track.firstElementChild;
    const limit = Math.max(pool.limit, pool.in_use + pool.idle, 1);
    const widths = [pool.in_use, pool.idle].map((part) => `${(100 * part) / limit}%`);
    [...bar.children].forEach((part, index) => (part.style.width = widths[index]));
    bar.setAttribute("aria-label", `${pool.in_use} in use, ${pool.idle} idle, at most ${pool.limit}`);
    state(bar, pool.waiting > 0 ? "bad" : "");
    set(used, `${pool.in_use} of ${pool.limit}`);
    set(waiting, pool.waiting ? `${pool.waiting}, ${duration(pool.oldest_wait_ms)}` : "0");
    waiting.classList.toggle("strong", pool.waiting > 0);
  });
  const rest = now.pool_count - now.pools.length;
  set("pool-note", now.pool_count === 0 ? "none is open" : rest > 0 ? `and ${rest} less busy ones` : "");
}

function showReasons(rate) {
  const top = rate.reasons.toSorted((a, b) => b.total - a.total).slice(0, 12);
  const make = () => makeRow(["name", "", "#per second", "#in all"]);
  rows($("reasons").tBodies[0], top, ({ route, reason }) => `${route} ${reason}`, make, (row, item) => {
    const [reason, route, each, total] = row.children;
    set(reason, item.reason.replaceAll("_", " "));
    set(route, item.route);
    route.className = `route-${item.route}`;
    set(each, count(item.rate));
    set(total, count(item.total));
  });
}

function showStatements(details) {
  const make = () => {
    const row = makeRow(["", "#calls", "#in all", "#mean", "#p99", "#errors", ""]);
    element(row.children[0], "code");
    element(row.children[0], "small");
    const bar = element(row.children[6], "div", { class: "bar", role: "img" });
    element(bar, "i", { class: "on-replica" });
    element(bar, "i", { class: "used" });
    element(row.children[6], "small");
    return row;
  };
  const body = $("statements").tBodies[0];
  const key = (item) => `${item.fingerprint} ${item.database}`;
  rows(body, details.statements, key, make, (row, item) => {
    const [shape, calls, total, mean, high, errors, where] = row.children;
    set(shape.children[0], item.shape);
    set(shape.children[1], `${item.database} · ${item.fingerprint}${item.reason ? ` · ${item.reason.replaceAll("_", " ")}` : ""}`);
    set(calls, count(item.calls));
    set(total, duration(item.total_ms));
    set(mean, duration(item.mean_ms));
    set(high, duration(item.p99_ms ?? NaN));
    set(errors, count(item.errors));
    errors.classList.toggle("strong", item.errors > 0);
    const share = (part) => (100 * part) / Math.max(1, item.on_replica + item.on_primary);
    const bar = where.firstElementChild;
    bar.children[0].style.width = `${share(item.on_replica)}%`;
    bar.children[1].style.width = `${share(item.on_primary)}%`;
    const words = `${Math.round(share(item.on_replica))} % on replicas, ${Math.round(share(item.on_primary))} % on the primary`;
    bar.setAttribute("aria-label", words);
    bar.title = words;
    const [replicas, primary] = [Math.round(share(item.on_replica)), Math.round(share(item.on_primary))];
    set(where.children[1], replicas === 0 ? "primary" : primary === 0 ? "replicas" : `${replicas} % replicas`);
  });
  const rest = details.statement_count - details.statements.length;
  set("statement-note", details.statement_count === 0 ? "none has been counted" : `by time in all${rest > 0 ? `; ${rest} more in the console` : ""}`);
}

function showEvents(details) {
  const make = () => {
    const row = document.createElement("li");
    for (const name of ["time", "span", "span", "span"]) element(row, name);
    ["", "kind", "subject", "message"].forEach((name, index) => (row.children[index].className = name));
    return row;
  };
  rows($("events"), details.events, ({ id }) => `${id}`, make, (row, event) => {
    const at = new Date(event.at);
    row.children[0].dateTime = at.toISOString();
    row.children[0].title = at.toLocaleString();
    const today = at.toDateString() === new Date().toDateString();
    set(row.children[0], today ? at.toLocaleTimeString("en-GB") : at.toISOString().slice(5, 10));
    set(row.children[1], event.kind);
    set(row.children[2], event.subject);
    set(row.children[3], event.message);
  });
}

// ---- asking

const charts = {
  queries: new Chart($("chart-queries"), [
    { key: "replica", name: "replicas", tint: "replica", fill: true },
    { key: "primary", name: "primary", tint: "primary", dash: "dashed", fill: true },
    { key: "local", name: "pgweir itself", tint: "local", dash: "dotted" },
  ], { format: count, span: SPAN_MS, label: "Batches per second" }),
  latency: new Chart($("chart-latency"), [
    { key: "p50", name: "p50", tint: "low" },
    { key: "p95", name: "p95", tint: "middle", dash: "dashed" },
    { key: "p99", name: "p99", tint: "high", dash: "dotted" },
  ], { format: duration, span: SPAN_MS, logarithmic: true, label: "Time on the server" }),
};

let last = null;
let answeredAt = Date.now();

function show(now) {
  // The same picture again: two pages share one.
  if (last && now.taken_at === last.taken_at) return;
  const isRestarted = last && now.started_at !== last.started_at;
  // By whoever keeps the proxy's clock: pictures come in their order.
  const isSetBack = last && now.taken_at < last.taken_at;
  for (const chart of last ? Object.values(charts) : []) {
    if (isSetBack) chart.clear();
    else if (isRestarted || now.taken_at - last.taken_at > 5 * OVERVIEW_MS) chart.gap(last.taken_at + 1);
  }
  if (isRestarted || isSetBack) last = null;
  const rate = last && rates(now, last);
  showHeader(now);
  showNumbers(now, rate);
  showTopology(now, rate);
  showPools(now);
  if (rate) {
    showReasons(rate);
    charts.queries.add({ at: now.taken_at, ...rate.routes });
    const at = (share) => quantile(rate.latency, now.bounds_us, share);
    charts.latency.add({ at: now.taken_at, p50: at(0.5), p95: at(0.95), p99: at(0.99) });
  }
  last = now;
}

async function ask(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

// One question after the other, so that a slow answer is not overtaken; none while nobody looks.
async function poll(path, pause, use) {
  for (;;) {
    const asked = Date.now();
    if (document.visibilityState === "visible") {
      const answer = await ask(path).catch(() => null);
      if (answer) use(answer);
    }
    await new Promise((resume) => setTimeout(resume, Math.max(100, asked + pause - Date.now())));
  }
}

function showConnection() {
  const silent = Date.now() - answeredAt;
  const isOffline = silent > 3 * OVERVIEW_MS;
  $("offline").hidden = !isOffline;
  if (isOffline) {
    set("offline", `pgweir has not answered for ${age(silent)}: all below is as old as that.`);
    set("phase", "■ no answer");
    state($("phase"), "bad");
  }
  set("updated", isOffline ? "" : `as of ${new Date(answeredAt).toLocaleTimeString("en-GB")}`);
}

document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") answeredAt = Date.now();
});
setInterval(showConnection, 1000);
poll("api/overview.json", OVERVIEW_MS, (now) => {
  answeredAt = Date.now();
  show(now);
  showConnection();
});
poll("api/details.json", DETAILS_MS, (details) => {
  showStatements(details);
  showEvents(details);
});
