// Drives a headless Chromium over its debugging pipe, for browser.rs: commands come as lines, and each is answered by one.
// Node passes the two pipes that Chromium wants as file descriptors 3 and 4; nothing else is needed.

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const names = [process.env.CHROMIUM, "chromium", "chromium-browser", "google-chrome"].filter(Boolean);
const program = names.find((name) => spawnSync(name, ["--version"]).status === 0);
if (!program) {
  console.log("error there is no Chromium: cargo xtask setup installs it");
  process.exit(1);
}

const folder = mkdtempSync(join(tmpdir(), "pgweir-browser-"));
// Without a sandbox, since tests run as root too; it loads nothing but what the test serves.
const options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
  "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe", `--user-data-dir=${folder}`, "about:blank"];
const chromium = spawn(program, options, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
// ---- the protocol: JSON texts with a NUL behind each

const [, , , input, output] = chromium.stdio;
const pending = new Map();
const errors = [];
let sent = 0;
let unread = "";
let session;
let onLoad;

function call(method, params = {}) {
  sent += 1;
  input.write(`${JSON.stringify({ id: sent, method, params, sessionId: session })}\0`);
  return new Promise((resolve, reject) => pending.set(sent, { resolve, reject }));
}

function onMessage({ id, result, error, method, params }) {
  if (id !== undefined) {
    const { resolve, reject } = pending.get(id);
    pending.delete(id);
    if (error) reject(new Error(error.message));
    else resolve(result);
  } else if (method === "Page.loadEventFired") {
    onLoad();
  } else if (method === "Runtime.exceptionThrown") {
    errors.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
  } else if (method === "Runtime.consoleAPICalled" && ["error", "warning", "assert"].includes(params.type)) {
    errors.push(params.args.map((argument) => argument.value ?? argument.description).join(" "));
  } else if (method === "Log.entryAdded" && ["error", "warning"].includes(params.entry.level)) {
    errors.push(`${params.entry.text} ${params.entry.url ?? ""}`);
  }
}

output.setEncoding("utf8");
output.on("data", (chunk) => {
  const texts = (unread + chunk).split("\0");
  unread = texts.pop();
  for (const text of texts) onMessage(JSON.parse(text));
});

// ---- what can be asked for

async function open(url) {
  const { targetId } = await call("Target.createTarget", { url: "about:blank" });
  session = (await call("Target.attachToTarget", { targetId, flatten: true })).sessionId;
  for (const domain of ["Page", "Runtime", "Log", "Network"]) await call(`${domain}.enable`);
  const loaded = new Promise((resolve) => (onLoad = resolve));
  const { errorText } = await call("Page.navigate", { url });
  if (errorText) throw new Error(errorText);
  await loaded;
}

const commands = {
  open,
  async eval(expression) {
    const { result, exceptionDetails } = await call("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value ?? null;
  },
  async size(text) {
    const [width, height] = text.split(" ").map(Number);
    await call("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
  },
  async scheme(value) {
    await call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value }] });
  },
  async shot(path) {
    const { data } = await call("Page.captureScreenshot", { format: "png", captureBeyondViewport: true });
    writeFileSync(path, Buffer.from(data, "base64"));
  },
  errors: () => errors,
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...rest] = line.split(" ");
  try {
    const answer = await commands[name](rest.join(" "));
    console.log(`ok ${JSON.stringify(answer ?? null)}`);
  } catch (error) {
    console.log(`error ${error.message.replaceAll("\n", " ")}`);
  }
}

// Asked to, it ends in order, its own processes with it, and leaves a folder that can be deleted.
session = undefined;
const ended = new Promise((resolve) => chromium.once("exit", resolve));
call("Browser.close").catch(() => {});
const late = setTimeout(() => chromium.kill("SIGKILL"), 5000);
await ended;
clearTimeout(late);
rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
process.exit(0);
