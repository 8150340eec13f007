// Balance, bill, value and verification: figures from the books, written as they are read.

import { clock, day, make, money, whole, write } from "./format.js";

const at = (id) => document.getElementById(id);
const SEGMENTS = ["available", "leased", "reserved", "spent", "expired"];
let wallet = [];
let open = new Map();

export function state(content) {
  wallet = content.wallet;
  at("operator").textContent = content.operator.legal_entity;
  at("customer").textContent = [content.customer.name, ...wallet.filter(holds).slice(0, 2).map(terms)].join(" · ");
  balance();
  bill(content.bill);
  value(content.margins, content.suppliers);
}

// Reservations live in the gateway, inside its leases; the page knows them from the records that are open.
export function reservation(record) {
  if (record.stage === "opened") open.set(record.request_id, record.reserved);
  else open.delete(record.request_id);
  balance();
}

function balance() {
  if (!wallet.length) return;
  const unit = wallet[0].unit;
  const same = wallet.filter((bucket) => bucket.unit === unit);
  const sum = (name) => same.reduce((total, bucket) => total + BigInt(bucket[name]), 0n);
  const [available, leased, spent, expired] = ["available", "leased", "spent", "expired"].map(sum);
  const reserved = [...open.values()].flat().filter((part) => part.unit === unit)
    .reduce((total, part) => total + BigInt(part.amount), 0n);
  write(at("balance"), whole(available + leased));
  at("balance-unit").textContent = unit;
  write(at("available"), whole(available));
  write(at("leased"), whole(leased));
  write(at("reserved"), whole(reserved));
  write(at("spent"), whole(spent));
  const within = reserved < leased ? reserved : leased;
  pipe({ available, leased: leased - within, reserved: within, spent, expired }, unit);
}

// Shares of a bar need no exactness, so here, and only here, amounts become numbers.
function pipe(amounts, unit) {
  const total = Number(Object.values(amounts).reduce((sum, amount) => sum + amount, 0n)) || 1;
  for (const name of SEGMENTS) {
    const segment = at("pipe").querySelector(`.${name}`);
    segment.style.flexGrow = String(Number(amounts[name]) / total);
    segment.classList.toggle("some", amounts[name] > 0n);
  }
  at("pipe").setAttribute("aria-label", SEGMENTS.map((name) => `${name} ${whole(amounts[name])} ${unit}`).join(", "));
}

// A bucket that is used up or expired is in the figures, but no longer worth naming.
function holds(bucket) {
  return bucket.available !== "0" || bucket.leased !== "0";
}

// People know a bucket by the offer it was bought as.
export function offer(bucketId) {
  return wallet.find((bucket) => bucket.id === bucketId)?.offer ?? bucketId;
}

function terms(bucket) {
  return `${bucket.offer}, valid to ${day(bucket.valid_to)}`;
}

function bill(content) {
  at("bill-from").textContent = `from ${day(content.period_from)}`;
  at("bill-lines").replaceChildren(...content.lines.map((line) => {
    const row = make("tr");
    const heading = make("th", line.text);
    heading.scope = "row";
    const cell = make("td");
    money(cell, line.total);
    row.append(heading, cell);
    return row;
  }));
  money(at("bill-net"), content.net);
  money(at("bill-tax"), content.tax);
  money(at("bill-total"), content.total);
  write(at("bill-tokens"), whole(content.tokens));
}

function value(margins, suppliers) {
  for (const margin of margins) {
    const unit = margin.margin.unit;
    money(sum("margins", `revenue ${unit}`, "Revenue"), margin.revenue);
    money(sum("margins", `cost ${unit}`, "Cost of tokens"), margin.cost);
    const left = sum("margins", `margin ${unit}`, "Margin", "total");
    money(left, margin.margin);
    left.classList.toggle("below", margin.margin.amount.startsWith("-"));
  }
  for (const supplier of suppliers) {
    money(sum("suppliers", `${supplier.id} ${supplier.payable.unit}`, `Payable to ${supplier.name}`), supplier.payable);
  }
}

// The cell of a named sum, made when it is first needed.
function sum(list, key, label, names = "") {
  const found = at(list).querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (found) return found;
  const row = make("div", "", names);
  const cell = make("dd");
  cell.dataset.key = key;
  row.append(make("dt", label), cell);
  at(list).append(row);
  return cell;
}

export function verifying() {
  at("seal").dataset.state = "running";
  at("seal").lastElementChild.textContent = "Verifying";
}

export function verified(result) {
  const verdict = result.ok ? "good" : "bad";
  const failing = result.checks.filter((check) => !check.ok).length;
  at("seal").dataset.state = verdict;
  at("verification").dataset.state = verdict;
  at("seal").lastElementChild.textContent = result.ok ? "The books agree" : `${failing} of ${result.checks.length} checks fail`;
  at("verdict").textContent = result.ok ? `${result.checks.length} checks hold` : `${failing} of ${result.checks.length} checks fail`;
  at("verification-at").textContent = `${clock(result.at).slice(0, 8)}, in ${result.took_ms} ms`;
  const checks = [...result.checks].sort((one, other) => Number(one.ok) - Number(other.ok));
  at("checks").replaceChildren(...checks.map((check) => {
    const item = make("li", check.ok || !check.detail ? check.name : `${check.name}: ${check.detail}`, check.ok ? "" : "fails");
    item.title = check.detail;
    return item;
  }));
}

