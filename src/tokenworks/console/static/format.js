// Text for people from exact decimal text. Amounts never become JavaScript numbers: those are floats.

export const NONE = "–";

export function whole(text) {
  return String(text).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

// The parts of a currency amount: "9.339622642" → head "9.33", tail "9622642", rest "" (zeros not shown).
function parts(text) {
  const negative = text.startsWith("-");
  const [units, fraction = ""] = text.replace("-", "").split(".");
  const nine = fraction.padEnd(9, "0");
  const tail = nine.slice(2).replace(/0+$/, "");
  return {
    head: `${negative ? "−" : ""}${whole(units)}.${nine.slice(0, 2)}`,
    tail,
    rest: "0".repeat(7 - tail.length),
  };
}

export function plain(amount) {
  if (!isMoney(amount.unit)) return `${whole(amount.amount)} ${amount.unit}`;
  const { head, tail } = parts(amount.amount);
  return `${amount.unit} ${head}${tail}`;
}

export function several(list) {
  return list.length ? list.map(plain).join(" + ") : NONE;
}

function isMoney(unit) {
  return /^[A-Z]{3}$/.test(unit);
}

// Writes an amount so that a column of them lines up at the decimal point, to the last nano-unit.
export function money(element, amount) {
  const { head, tail, rest } = parts(amount.amount);
  const box = make("span", "", "money");
  box.append(make("span", amount.unit, "unit"), make("span", head, "head"), make("span", tail, "tail"));
  const hidden = make("span", rest, "rest");
  hidden.setAttribute("aria-hidden", "true");
  box.append(hidden);
  replace(element, `${amount.unit} ${head}${tail}`, () => element.replaceChildren(box));
}

export function write(element, text) {
  replace(element, String(text), () => { element.textContent = text; });
}

// A figure that changed lights up for a moment; the first one does not.
function replace(element, text, put) {
  if (element.dataset.shown === text) return;
  const first = element.dataset.shown === undefined || element.dataset.shown === NONE;
  element.dataset.shown = text;
  put();
  element.classList.remove("changed");
  if (first || text === NONE) return;
  void element.offsetWidth;
  element.classList.add("changed");
}

export function make(tag, text = "", names = "") {
  const element = document.createElement(tag);
  if (text !== "") element.textContent = text;
  if (names) element.className = names;
  return element;
}

export function ms(value) {
  return value === null || value === undefined ? NONE : `${whole(value)} ms`;
}

export function clock(rfc3339) {
  const at = new Date(rfc3339);
  const pad = (number, size = 2) => String(number).padStart(size, "0");
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
}

export function day(rfc3339) {
  return new Date(rfc3339).toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
}
