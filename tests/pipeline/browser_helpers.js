// What the browser's tests do in a page: act on it as a person would, and measure what one would see.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);
const text = (node) => node.textContent.replace(/\s+/g, " ").trim();
const settle = () => new Promise((done) => setTimeout(done, 60));

function shown(node) {
  const box = node.getBoundingClientRect();
  const style = getComputedStyle(node);
  return box.width > 0 && box.height > 0 && style.visibility !== "hidden" && style.display !== "none";
}

function slide(input, value) {
  input.value = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

// Whatever a page would put on the clipboard.
function clipboard() {
  const texts = [];
  Object.defineProperty(navigator, "clipboard", {
    configurable: true,
    value: { writeText: async (value) => void texts.push(value) },
  });
  return texts;
}

const ACTIVE = "a[href], button, input, select, textarea, summary, [tabindex]";

// Everything that one can act on, with whether the keyboard reaches it: by Tab, or by arrows from one that Tab reaches.
function reach() {
  const nodes = all(ACTIVE).filter((node) => shown(node) && !node.disabled && !node.closest("[inert]"));
  const byTab = nodes.filter((node) => node.tabIndex >= 0);
  const reached = new Set(byTab);
  const known = new Set(nodes);
  const quiet = (event) => event.stopImmediatePropagation(); // no tooltip at each of a thousand steps
  for (const kind of ["focus", "blur"]) addEventListener(kind, quiet, true);
  for (const start of byTab) {
    if (!start.hasAttribute("tabindex")) continue;
    const waiting = [start];
    while (waiting.length) {
      const node = waiting.pop();
      for (const key of ["ArrowRight", "ArrowDown"]) {
        node.focus({ preventScroll: true });
        node.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
        const next = document.activeElement;
        if (next && !reached.has(next) && known.has(next)) {
          reached.add(next);
          waiting.push(next);
        }
      }
    }
  }
  for (const kind of ["focus", "blur"]) removeEventListener(kind, quiet, true);
  return nodes.filter((node) => !reached.has(node) && !(node.id === "content"));
}

const describe = (node) => `${node.tagName.toLowerCase()}${node.id ? `#${node.id}` : ""}.${node.getAttribute("class") ?? ""} ${text(node).slice(0, 40)}`;

// Colours as the browser computes them -> red, green, blue in 0..1 and opacity.
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function colour(value) {
  if (!value || value === "none" || value === "transparent") return [0, 0, 0, 0];
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = "#000";
  canvas.fillStyle = value;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r / 255, g / 255, b / 255, a / 255];
}
const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];

function light([r, g, b]) {
  const [x, y, z] = [r, g, b].map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}

function contrast(one_, other) {
  const [high, low] = [light(one_), light(other)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}

// What is painted behind a place of an element: backgrounds of HTML up to the page, then filled shapes of its picture.
function behind(node) {
  const layers = [];
  for (let at = node; at; at = at.parentElement) layers.push(colour(getComputedStyle(at).backgroundColor));
  let paint = matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0, 1] : [1, 1, 1, 1];
  for (const layer of layers.reverse()) paint = over(layer, paint);
  const picture = node.closest("svg");
  if (!picture) return paint;
  const box = node.getBoundingClientRect();
  const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
  for (const shape of all("rect, circle", picture)) {
    if (!(shape.compareDocumentPosition(node) & Node.DOCUMENT_POSITION_FOLLOWING)) continue;
    const area = shape.getBoundingClientRect();
    if (x < area.left || x > area.right || y < area.top || y > area.bottom) continue;
    const style = getComputedStyle(shape);
    const [r, g, b, a] = colour(style.fill);
    paint = over([r, g, b, a * Number(style.fillOpacity) * Number(style.opacity)], paint);
  }
  return paint;
}

// Texts whose contrast is below what people need: 4.5, or 3 for large ones.
function faint() {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || node.closest("script, style, noscript") || !shown(node)) continue;
    const style = getComputedStyle(node);
    const painted = node instanceof SVGElement ? style.fill : style.color;
    const paper = behind(node);
    const ratio = contrast(over(colour(painted), paper), paper);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} ${describe(node)}`);
  }
  return found;
}

// What a page that has just opened is like.
async function opened() {
  await settle();
  const root = document.documentElement;
  const resources = performance.getEntriesByType("resource").map(({ name }) => name);
  return {
    resources: resources.filter((name) => !name.startsWith("data:")),
    policy: one("meta[http-equiv=Content-Security-Policy]").content,
    empty: all(".widget").filter((host) => !one(".drawn", host)?.childElementCount || one(".drawn img", host)).length,
    sideways: root.scrollWidth - root.clientWidth,
    broken: all("img").filter((image) => !image.naturalWidth).length,
  };
}

// Things to act on without a name, pictures without a description, sliders that do not say where they stand.
async function nameless() {
  await settle();
  const named = (node) => node.getAttribute("aria-label") || text(node) || (node.labels?.length && text(node.labels[0]));
  const told = (picture) =>
    picture.closest("[aria-hidden=true], [aria-label]") || one("title, desc", picture) || !picture.childElementCount;
  return {
    unnamed: all("button, input, select, a[href]").filter((node) => !named(node)).map(describe),
    silent: all(".drawn svg").filter((picture) => !told(picture)).map(describe),
    untold: all(".drawn input[type=range]").filter((input) => !input.getAttribute("aria-valuetext")).map(describe),
  };
}

// Every slider of every figure, moved to its one end, to the other, and back.
async function slideAll() {
  await settle();
  const found = [];
  for (const host of all(".widget")) {
    for (let place = 0; place < all("input[type=range]", host).length; place += 1) {
      const input = () => all("input[type=range]", host)[place];
      const seen = [];
      for (const end of ["min", "max", "min"]) {
        slide(input(), input()[end]);
        await settle();
        const drawn = one(".drawn", host).innerHTML.replace(/ (id|value|aria-valuetext|tabindex)="[^"]*"|url\([^)]*\)/g, "");
        seen.push([drawn, text(one("output", input().closest("label")))]);
      }
      const [first, second, third] = seen;
      found.push({
        kind: host.dataset.kind,
        changed: first[0] !== second[0],
        told: first[1] !== second[1],
        back: first[0] === third[0] && first[1] === third[1],
      });
    }
  }
  return found;
}

// What the budget's slider says at each of its places.
async function budgets() {
  await settle();
  const host = one(".widget[data-kind=pareto]");
  const input = () => one("input[type=range]", host);
  const said = [];
  for (let value = 0; value <= Number(input().max); value += 1) {
    slide(input(), value);
    await settle();
    said.push({ verdict: text(one(".verdict", host)), cards: text(one(".cards", host)) });
  }
  return said;
}

// Marks of what the paper prints, and what is said at the largest budget.
async function papers() {
  await settle();
  const host = one(".widget[data-kind=pareto]");
  const input = one("input[type=range]", host);
  slide(input, input.max);
  await settle();
  const marks = all("g[aria-label]", host).filter((mark) => mark.getAttribute("aria-label").includes("as printed in"));
  return {
    labels: marks.map((mark) => mark.getAttribute("aria-label")),
    fills: marks.map((mark) => getComputedStyle(one("path", mark)).fill),
    said: text(one(".verdict", host)) + text(one(".cards", host)),
  };
}

// Each column of each table, clicked three times: the order that its head names, its values, and whether rows stay whole.
async function sortAll() {
  await settle();
  const found = [];
  for (const table of all("table.data")) {
    const body = [...table.tBodies].find((part) => !part.classList.contains("fixed"));
    const rows = () => [...body.rows].map((row) => [...row.cells].map((cell) => cell.dataset.value ?? text(cell)));
    const whole = (lines) => JSON.stringify(lines.map((line) => JSON.stringify(line)).sort());
    const before = rows();
    all("thead button", table).forEach((button, column) => {
      const orders = [];
      let same = true;
      for (let click = 0; click < 3; click += 1) {
        button.click();
        orders.push({ way: button.closest("th").getAttribute("aria-sort"), values: rows().map((row) => row[column]) });
        same &&= whole(rows()) === whole(before);
      }
      found.push({ orders, same, back: JSON.stringify(rows()) === JSON.stringify(before) });
    });
  }
  return found;
}

// The texts that the buttons under the results and beside the command copy.
async function copies() {
  await settle();
  const texts = clipboard();
  const table = one("#results table.data");
  const command = one("code.command");
  const buttons = [...all("button", table.closest(".scroll").nextElementSibling), one("button", command.parentNode)];
  for (const button of buttons) {
    button.click();
    await settle();
  }
  const rows = [...table.rows];
  return { texts, width: rows[0].cells.length, names: rows.map((row) => text(row.cells[0])), command: text(command) };
}

// What a copy button leaves where the browser has no clipboard for the page.
async function selected() {
  await settle();
  Object.defineProperty(navigator, "clipboard", { configurable: true, value: undefined });
  document.execCommand = () => false;
  const bar = one("#results table.data").closest(".scroll").nextElementSibling;
  one("button", bar).click();
  await settle();
  const area = one("textarea", bar);
  const part = area.value.slice(area.selectionStart, area.selectionEnd);
  return { part, focused: document.activeElement === area };
}

// What each point of the plane of networks tells the pointer, and the keyboard.
async function tips() {
  await settle();
  return all(".widget[data-kind=pareto] a.point").map((point) => {
    point.dispatchEvent(new PointerEvent("pointerenter", { pointerType: "mouse" }));
    const hovered = text(one("#tip"));
    document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
    const gone = one("#tip").hidden;
    point.dispatchEvent(new FocusEvent("focus"));
    return { hovered, gone, focused: text(one("#tip")), linked: point.getAttribute("aria-describedby") };
  });
}

// All that is looked at on every page, in one go.
async function visit() {
  const first = await opened();
  const links = all("a[href]").map((link) => link.getAttribute("href"));
  const names = await nameless();
  all("details").forEach((part) => (part.open = true));
  await settle();
  const unread = faint();
  return { ...first, ...names, links, faint: unread, unreached: reach().map(describe) };
}
