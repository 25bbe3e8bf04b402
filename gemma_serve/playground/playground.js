// The playground: one conversation with the server that this page came from.
// What comes from outside is only ever put into text nodes, and nothing is stored anywhere.

const $ = (id) => document.getElementById(id);
const LOADING_POLL_MS = 2000;
// A server that fails is asked again after that time, then after twice the time before, up to this.
const LONGEST_POLL_MS = 60000;
// Nearer to the end than this, the reader is taken along as the answer grows.
const FOLLOW_PX = 80;

/** An element with properties (class, text, on..., any attribute) and children. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// --- the server

/** What the server said no with, or that it said nothing. */
class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Call the server, by an address below this page's own; its refusal is a ServerError. */
async function call(path, { body, signal } = {}) {
  const headers = {};
  if ($("key").value) headers.authorization = `Bearer ${$("key").value}`;
  if (body) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    // A header takes ASCII alone, and the browser would name no reason.
    if (!/^[\x20-\x7e]*$/.test($("key").value)) {
      throw new ServerError("The API key has letters that no key has; type it again.", 401);
    }
    throw new ServerError("No answer from the server; is it still running?");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => null);
  const message = said?.error?.message ?? `The server answered ${answer.status}.`;
  throw new ServerError(message, answer.status);
}

/** A stream's next piece; that it broke off is told in our words, whichever way it did. */
async function nextPiece(reader) {
  try {
    const { value, done } = await reader.read();
    if (!done) return value;
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
  throw new ServerError("The answer broke off: the server closed the connection.");
}

/** The events of a stream, parsed. Source: https://html.spec.whatwg.org/multipage/server-sent-events.html */
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const lines = (rest + (await nextPiece(reader))).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue;
      const data = line.slice("data: ".length);
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new ServerError(event.error.message, event.error.code);
      yield event;
    }
  }
}

const server = { maxImages: 0, takesThinking: false };
let nextLook = 0;
let retryMs = LOADING_POLL_MS;

function lookAgainIn(milliseconds) {
  clearTimeout(nextLook);
  nextLook = setTimeout(connect, milliseconds);
}

/** Find out what is served, and go on asking while the model loads or the server fails. */
async function connect() {
  clearTimeout(nextLook);
  try {
    const info = await (await call("v1/info")).json();
    if (info.status === "starting") {
      setStatus("waiting", "The model is loading…");
      lookAgainIn(LOADING_POLL_MS);
      return;
    }
    const models = await (await call("v1/models")).json();
    showServer(info, models.data.map((model) => model.id));
    setStatus("ready", "Ready");
    retryMs = LOADING_POLL_MS;
  } catch (error) {
    const asksForKey = error.status === 401;
    setStatus("failed", asksForKey ? "API key needed" : error.message);
    // No time helps against the wrong key; another one asks again by itself.
    if (asksForKey) return;
    lookAgainIn(retryMs);
    retryMs = Math.min(2 * retryMs, LONGEST_POLL_MS);
  }
}

function setStatus(state, text) {
  $("status").dataset.state = state;
  // Written anew, it would be read out anew.
  if ($("status-text").textContent !== text) $("status-text").textContent = text;
}

function showServer(info, names) {
  const engine = info.engine ?? {};
  server.maxImages = engine.images_per_prompt ?? 0;
  server.takesThinking = (engine.template_variables ?? []).includes("enable_thinking");
  const chosen = $("model").value;
  $("model").replaceChildren(...names.map((name) => make("option", { text: name })));
  if (names.includes(chosen)) $("model").value = chosen;
  $("greeted").textContent = $("model").value;
  $("attach").hidden = server.maxImages === 0;
  $("thinking-field").hidden = !server.takesThinking;
  const facts = {
    Model: info.model,
    Profile: info.profile,
    Weights: engine.quantization ?? info.dtype,
    Context: `${engine.max_model_len?.toLocaleString("en")} tokens`,
    Images: server.maxImages ? `up to ${server.maxImages} a request` : "none",
    vLLM: info.vllm_version,
    "gemma-serve": info.gemma_serve_version,
  };
  $("facts").replaceChildren(
    ...Object.entries(facts).flatMap(([name, fact]) => [
      make("dt", { text: name }),
      make("dd", { text: fact }),
    ]),
  );
}

// --- the conversation

// A turn: { text, images, answer, thoughts, state, request, parts }.
// Its state: streaming, done, stopped or failed.
const turns = [];
let streaming = null;

/** What is sent for a turn: all before it that was answered, then itself, with the settings. */
function requestOf(turn) {
  const messages = [];
  const system = $("system").value.trim();
  if (system) messages.push({ role: "system", content: system });
  for (const past of turns.slice(0, turns.indexOf(turn))) {
    if (past.state === "failed" || !past.answer) continue;
    messages.push({ role: "user", content: contentOf(past) });
    messages.push({ role: "assistant", content: past.answer });
  }
  messages.push({ role: "user", content: contentOf(turn) });
  const request = { model: $("model").value || undefined, messages, ...sampling() };
  if (server.takesThinking && $("thinking").value) {
    request.chat_template_kwargs = { enable_thinking: $("thinking").value === "true" };
  }
  return request;
}

function contentOf({ text, images }) {
  if (!images.length) return text;
  const parts = images.map(({ url }) => ({ type: "image_url", image_url: { url } }));
  return text ? [...parts, { type: "text", text }] : parts;
}

/** The sampling fields that are filled in; the server judges their values. */
function sampling() {
  const fields = {};
  for (const name of ["temperature", "top_p", "top_k", "max_tokens", "seed"]) {
    if ($(name).validity.badInput) {
      throw new ServerError(`${name} is not a number; correct it in the settings.`);
    }
    if ($(name).value !== "") fields[name] = $(name).valueAsNumber;
  }
  return fields;
}

/** When tokens came: the time to the first, and how many a second after it. */
class Timing {
  constructor() {
    this.sent = performance.now();
    this.tokens = 0;
  }

  heard(tokens) {
    if (!tokens || tokens === this.tokens) return;
    this.tokens = tokens;
    this.last = performance.now();
    // An event may bring several tokens: those of the first have no time between them.
    this.first ??= { at: this.last, tokens };
  }

  figures() {
    if (!this.first) return [];
    const seconds = (this.last - this.first.at) / 1000;
    const rate = (this.tokens - this.first.tokens) / seconds;
    return [
      `${Math.round(this.first.at - this.sent).toLocaleString("en")} ms to first token`,
      ...(seconds > 0 ? [`${rate.toFixed(rate < 100 ? 1 : 0)} tokens/s`] : []),
      `${this.tokens.toLocaleString("en")} token${this.tokens === 1 ? "" : "s"}`,
    ];
  }
}

/** Ask the server for a turn's answer, and show it as it comes. */
async function answer(turn) {
  Object.assign(turn, { answer: "", thoughts: "", state: "streaming", finish: null });
  const timing = (turn.timing = new Timing());
  streaming = { turn, controller: new AbortController() };
  showTurn(turn);
  showStreaming();
  try {
    turn.request = requestOf(turn);
    const options = { include_usage: true, continuous_usage_stats: true };
    const body = { ...turn.request, stream: true, stream_options: options };
    timing.sent = performance.now();
    const response = await call("v1/chat/completions", { body, signal: streaming.controller.signal });
    for await (const event of events(response)) {
      const choice = event.choices?.[0];
      turn.answer += choice?.delta?.content ?? "";
      turn.thoughts += choice?.delta?.reasoning ?? choice?.delta?.reasoning_content ?? "";
      turn.finish = choice?.finish_reason ?? turn.finish;
      timing.heard(event.usage?.completion_tokens);
      drawSoon(turn);
    }
    turn.state = "done";
    announce(turn.answer);
    if ($("status").dataset.state !== "ready") connect();
  } catch (error) {
    turn.state = error.name === "AbortError" ? "stopped" : "failed";
    turn.error = error.message;
    if (error.status === 401) askForKey();
    if (turn.state === "stopped") announce("Stopped.");
  }
  streaming = null;
  showTurn(turn);
  showStreaming();
}

function send() {
  const text = $("message").value.trim();
  if (streaming || (!text && !attached.length)) return;
  const turn = { text, images: attached.splice(0) };
  turns.push(turn);
  $("message").value = "";
  showAttached();
  notice("");
  answer(turn);
}

function stop() {
  streaming?.controller.abort();
}

/** Take the last turn back into the box, to be written anew; what is in the box stays below it. */
function edit(turn) {
  turns.splice(turns.indexOf(turn), 1);
  turn.parts.user.remove();
  turn.parts.answer.remove();
  $("message").value = [turn.text, $("message").value].filter(Boolean).join("\n\n");
  attached.unshift(...turn.images);
  showAttached();
  showEmpty();
  if (turns.length) showTurn(turns.at(-1));
  $("message").focus();
}

function startAnew() {
  stop();
  turns.length = 0;
  $("log").replaceChildren();
  showEmpty();
  $("message").focus();
}

// --- what is seen of it

const waitingToBeDrawn = new Set();

/** Draw a growing answer with the screen's next frame, however many tokens came since the last. */
function drawSoon(turn) {
  if (waitingToBeDrawn.has(turn)) return;
  waitingToBeDrawn.add(turn);
  requestAnimationFrame(() => {
    waitingToBeDrawn.delete(turn);
    if (turn.state === "streaming") drawAnswer(turn);
  });
}

function drawAnswer(turn) {
  const follows = atEnd();
  const { thoughts, text, figures } = turn.parts;
  thoughts.hidden = !turn.thoughts;
  thoughts.lastChild.textContent = turn.thoughts;
  drawMarkdown(text, turn.answer);
  const cut = turn.finish === "length" ? ["cut at max tokens"] : [];
  const stopped = turn.state === "stopped" ? ["stopped"] : [];
  const shown = [...turn.timing.figures(), ...cut, ...stopped];
  figures.replaceChildren(...shown.map((figure) => make("span", { text: figure })));
  if (follows) goToEnd();
}

function showTurn(turn) {
  const isNew = !turn.parts;
  const follows = isNew || atEnd();
  if (isNew) {
    turn.parts = partsOf(turn);
    $("log").append(turn.parts.user, turn.parts.answer);
    const before = turns.at(-2);
    if (before?.parts) showTurn(before);
  }
  const { answer, error, actions, prompt } = turn.parts;
  answer.setAttribute("aria-busy", String(turn.state === "streaming"));
  error.hidden = turn.state !== "failed";
  error.textContent = turn.state === "failed" ? turn.error : "";
  drawAnswer(turn);
  // A button that is gone must not take the focus with it.
  const hadFocus = actions.contains(document.activeElement);
  actions.replaceChildren(...actionsOf(turn));
  if (hadFocus) $("message").focus();
  if (turn.state === "streaming") prompt.replaceChildren();
  showEmpty();
  if (follows) goToEnd();
}

function partsOf(turn) {
  const pictures = turn.images.map(({ url, name }) => make("img", { src: url, alt: name }));
  const user = make("article", { class: "message user", "aria-label": "You" });
  if (pictures.length) user.append(make("div", { class: "images" }, ...pictures));
  if (turn.text) user.append(make("div", { class: "text", dir: "auto", text: turn.text }));
  const title = make("summary", { text: "Thoughts" });
  const thoughts = make("details", { class: "thoughts" }, title, make("p", { dir: "auto" }));
  const text = make("div", { class: "text" });
  const error = make("p", { class: "error", role: "alert" });
  const figures = make("p", { class: "figures" });
  const actions = make("p", { class: "actions" });
  const foot = make("div", { class: "foot" }, figures, actions);
  const prompt = make("div");
  const answer = make("article", { class: "message answer", "aria-label": "Answer" });
  answer.append(thoughts, text, error, foot, prompt);
  return { user, answer, thoughts, text, error, figures, actions, prompt };
}

function actionsOf(turn) {
  if (turn.state === "streaming") return [];
  const quiet = (text, onclick, more = {}) =>
    make("button", { type: "button", class: "quiet", text, onclick, ...more });
  const actions = [];
  if (turn.answer) actions.push(quiet("Copy", (event) => copy(turn.answer, event.target)));
  if (turn.request) {
    const expanded = { "aria-expanded": String(Boolean(turn.parts.prompt.firstChild)) };
    actions.push(quiet("Prompt", (event) => togglePrompt(turn, event.target), expanded));
  }
  if (turn === turns.at(-1)) {
    actions.push(quiet("Edit", () => edit(turn)), quiet("Retry", () => !streaming && answer(turn)));
  }
  return actions;
}

/** Show the exact prompt of a turn below it, as the server renders it; or hide it again. */
async function togglePrompt(turn, button) {
  const { prompt } = turn.parts;
  const opens = !prompt.firstChild;
  button.setAttribute("aria-expanded", String(opens));
  prompt.replaceChildren();
  if (!opens) return;
  try {
    const rendered = await (await call("v1/chat/completions/render", { body: turn.request })).json();
    const about = [
      `The prompt: ${rendered.num_tokens.toLocaleString("en")} tokens`,
      `the answer ends at id ${rendered.stop_token_ids.join(" or ")}`,
      `rules applied: ${rendered.rules.join(", ") || "none"}`,
    ].join("; ");
    const ids = make("pre", { text: rendered.token_ids.join(" "), tabindex: "0" });
    prompt.replaceChildren(
      make("section", { class: "prompt", "aria-label": "Rendered prompt" },
        make("h3", { text: about }),
        make("pre", { text: rendered.prompt, tabindex: "0" }),
        make("details", {}, make("summary", { text: "Token ids" }), ids),
      ),
    );
    prompt.scrollIntoView({ block: "nearest" });
  } catch (error) {
    prompt.replaceChildren(make("p", { class: "error", role: "alert", text: error.message }));
  }
}

async function copy(text, button) {
  const said = button.textContent;
  button.textContent = (await isCopied(text)) ? "Copied" : "Not copied";
  announce(button.textContent);
  setTimeout(() => (button.textContent = said), 1500);
}

async function isCopied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Over plain http from another machine, browsers have no clipboard but the old command.
    const area = make("textarea", { class: "unseen" });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

function showStreaming() {
  $("send").hidden = Boolean(streaming);
  $("stop").hidden = !streaming;
  if (document.activeElement === document.body) $("message").focus();
}

function showEmpty() {
  $("empty").hidden = turns.length > 0;
}

function atEnd() {
  const { scrollHeight, scrollTop, clientHeight } = $("scroller");
  return scrollHeight - scrollTop - clientHeight < FOLLOW_PX;
}

function goToEnd() {
  $("scroller").scrollTop = $("scroller").scrollHeight;
}

/** Say it to a screen reader. */
function announce(text) {
  $("announcer").textContent = text;
}

/** Say it above the box, until the next message. */
function notice(text) {
  $("notice").hidden = !text;
  $("notice").textContent = text;
}

// --- images

const attached = [];

async function attach(files) {
  const images = [...files].filter((file) => file.type.startsWith("image/"));
  if (!images.length) return;
  if (server.maxImages === 0) {
    notice(`${$("model").value || "The model"} takes no images.`);
    return;
  }
  try {
    for (const file of images) attached.push({ name: file.name, url: await dataUrl(file) });
  } catch (error) {
    notice(`The image can't be read: ${error.message}`);
  }
  showAttached();
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

function showAttached() {
  $("images").hidden = !attached.length;
  $("images").replaceChildren(
    ...attached.map((image) =>
      make("li", {},
        make("img", { src: image.url, alt: image.name }),
        make("button", {
          type: "button",
          text: "×",
          "aria-label": `Remove ${image.name}`,
          onclick: () => {
            attached.splice(attached.indexOf(image), 1);
            showAttached();
            $("message").focus();
          },
        }),
      ),
    ),
  );
}

// --- Markdown, the little of it that models write, as elements; all else stays the text it is

/** Draw a text, keeping the elements of the blocks that have not changed since the last time. */
function drawMarkdown(container, text) {
  const blocks = blocksOf(text);
  const shown = [...container.children];
  let same = 0;
  while (same < shown.length && same < blocks.length && shown[same].source === blocks[same].source) same += 1;
  for (const old of shown.slice(same)) old.remove();
  for (const block of blocks.slice(same)) {
    const element = elementOf(block);
    element.source = block.source;
    container.append(element);
  }
}

const FENCE = /^(\s*)(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
const HEADING = /^#{1,6}\s+(.*)$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;

/** Cut a text into blocks: { kind, lines, source }, and of code its language. */
function blocksOf(text) {
  const blocks = [];
  let open = null; // the block that the next line may join
  let fence = null; // what opened the code that the next line is part of
  let afterBlank = false;
  for (const line of text.split("\n")) {
    const found = FENCE.exec(line);
    if (fence) {
      if (found?.[2].startsWith(fence[2]) && !found[3]) fence = open = null;
      else add(line.startsWith(fence[1]) ? line.slice(fence[1].length) : line.trimStart());
    } else if (found) {
      fence = found;
      begin("code", { language: found[3], source: line });
    } else if (!line.trim()) {
      if (open?.kind !== "list") open = null;
      afterBlank = true;
    } else if (HEADING.test(line)) {
      begin("heading");
      add(HEADING.exec(line)[1]);
      open = null;
    } else if (RULE.test(line)) {
      begin("rule", { source: "rule" });
      open = null;
    } else {
      addText(line);
    }
  }
  return blocks;

  function addText(line) {
    const isItem = ITEM.test(line);
    const kind = /^\s*>/.test(line) ? "quote" : /^\s*\|/.test(line) ? "table" : isItem ? "list" : null;
    // After an empty line, a list goes on with an item or an indented line only.
    if (afterBlank && !isItem && !/^\s{2,}/.test(line)) open = null;
    afterBlank = false;
    const joins = open && (kind === open.kind || (kind === null && open.kind !== "table"));
    if (!joins) begin(kind ?? "paragraph");
    add(line);
  }

  function begin(kind, more = {}) {
    open = { kind, lines: [], source: "", ...more };
    blocks.push(open);
  }

  function add(line) {
    open.lines.push(line);
    open.source += `${open.kind}\n${line}\n`;
  }
}

function elementOf({ kind, lines, language }) {
  const text = lines.join("\n");
  if (kind === "code" || kind === "table") return codeElement(text, kind === "table" ? "table" : language);
  if (kind === "heading") return make("h3", { dir: "auto" }, ...inline(text));
  if (kind === "rule") return make("hr");
  if (kind === "list") return listElement(lines);
  if (kind === "quote") return make("blockquote", { dir: "auto" }, ...inline(text.replace(/^\s*>\s?/gm, "")));
  return make("p", { dir: "auto" }, ...inline(text));
}

function codeElement(text, language) {
  const button = make("button", { type: "button", class: "quiet", text: "Copy" });
  button.addEventListener("click", () => copy(text, button));
  const head = make("div", {}, make("span", { text: language || "text" }), button);
  return make("div", { class: "code" }, head, make("pre", { tabindex: "0" }, make("code", { text })));
}

/** A list of lines, nested by how far they are indented. */
function listElement(lines) {
  const root = make("div");
  const stack = [{ indent: -1, list: root }];
  for (const line of lines) {
    const [, space, mark, text] = ITEM.exec(line) ?? [];
    const top = stack.at(-1);
    if (mark === undefined) {
      top.list.lastChild.append("\n", ...inline(line.trim()));
      continue;
    }
    const indent = space.length;
    while (stack.length > 2 && indent < stack.at(-1).indent) stack.pop();
    if (stack.length === 1 || indent > stack.at(-1).indent + 1) {
      const list = /\d/.test(mark) ? make("ol", { start: String(parseInt(mark, 10)) }) : make("ul");
      (stack.at(-1).list.lastChild ?? root).append(list);
      stack.push({ indent, list });
    }
    stack.at(-1).list.append(make("li", { dir: "auto" }, ...inline(text)));
  }
  return root.firstChild;
}

// Code, strong, emphasis; bounded, so that no text makes the search long.
const INLINE =
  /(?<!`)(`+)(?!`)([^\n]{1,400}?)(?<!`)\1(?!`)|\*\*(?=\S)([^]{0,800}?\S)\*\*|\*(?=[^\s*])([^*\n]{0,400}?[^\s*])\*/g;

function inline(text) {
  const nodes = [];
  let end = 0;
  for (const found of text.matchAll(INLINE)) {
    nodes.push(text.slice(end, found.index));
    const [whole, , code, strong, em] = found;
    if (code !== undefined) nodes.push(make("code", { text: code.trim() }));
    else if (strong !== undefined) nodes.push(make("strong", {}, ...inline(strong)));
    else nodes.push(make("em", { text: em }));
    end = found.index + whole.length;
  }
  return [...nodes, text.slice(end)];
}

// --- settings

function showSettings(shown) {
  $("settings").hidden = !shown;
  $("toggle-settings").setAttribute("aria-expanded", String(shown));
  // On a narrow screen they lie over the conversation, which then is not there to be reached.
  for (const covered of ["scroller", "composer"]) $(covered).inert = shown && !isWide.matches;
}

const isWide = matchMedia("(min-width: 54.01rem)");

function askForKey() {
  showSettings(true);
  setStatus("failed", "API key needed");
  $("key").focus();
}

// --- what the reader does

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("message").addEventListener("keydown", (event) => {
  // While a word is composed (Chinese, Japanese, Korean), Enter ends the word.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (streaming) stop();
  else if (!isWide.matches && !$("settings").hidden) {
    showSettings(false);
    $("toggle-settings").focus();
  }
});
$("stop").addEventListener("click", stop);
$("new-chat").addEventListener("click", startAnew);
$("key").addEventListener("change", connect);
$("model").addEventListener("change", () => ($("greeted").textContent = $("model").value));
$("toggle-settings").addEventListener("click", () => showSettings($("settings").hidden));
isWide.addEventListener("change", () => showSettings(isWide.matches));
for (const idea of document.querySelectorAll(".idea")) {
  idea.addEventListener("click", () => {
    $("message").value = idea.textContent;
    $("message").focus();
  });
}

$("attach").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", async () => {
  await attach($("files").files);
  $("files").value = "";
  $("message").focus();
});
$("message").addEventListener("paste", (event) => {
  if ([...event.clipboardData.files].some((file) => file.type.startsWith("image/"))) {
    event.preventDefault();
    attach(event.clipboardData.files);
  }
});
const box = document.querySelector(".box");
document.addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  box.classList.toggle("dropping", server.maxImages > 0);
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) box.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  box.classList.remove("dropping");
  attach(event.dataTransfer.files);
});

showSettings(isWide.matches);
if (isWide.matches) $("message").focus();
connect();

export { drawMarkdown };
