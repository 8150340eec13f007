// The usage record of the running request, and the table of the latest ones.

import { offer } from "./books.js";
import { NONE, clock, make, ms, plain, several, whole, write } from "./format.js";

const at = (id) => document.getElementById(id);
const STAGES = ["opened", "closed", "posted"];
const SAID = { opened: "open", closed: "closed", posted: "posted" };
const ROWS = 12;
const records = new Map();
let shown = null;
let asking = false;

// A prompt went out: the card waits for its record, and for no other until the answer has ended.
export function sent() {
  asking = true;
  show(null);
}

export function admitted(requestId) {
  show(requestId);
}

export function ended() {
  asking = false;
  if (shown === null) show(newest()[0]?.request_id ?? null);
}

// Records may come twice (as they happen, and in the state); a later stage is never replaced by an earlier one.
export function take(record) {
  const known = records.get(record.request_id);
  if (known && STAGES.indexOf(known.stage) > STAGES.indexOf(record.stage)) return;
  records.set(record.request_id, record);
  if (!asking && !known) shown = newest()[0].request_id;
  if (shown === record.request_id) show(shown);
  list();
}

function show(requestId) {
  shown = requestId;
  draw(records.get(requestId) ?? null);
  at("record-id").textContent = requestId ?? "";
}

function newest() {
  return [...records.values()].sort((one, other) => (one.opened_at < other.opened_at ? 1 : -1));
}

function draw(record) {
  at("record-stage").dataset.stage = record?.stage ?? "";
  at("record-stage").textContent = record ? SAID[record.stage] : asking ? "waiting" : "no request yet";
  rail(record);
  classes(record?.tokens ?? null);
  fact("record-reserved", record ? several(record.reserved) : NONE);
  fact("record-charged", !record || record.stage === "opened" ? NONE : record.charges.length ? several(record.charges.map((charge) => charge.amount)) : "nothing");
  fact("record-bucket", record?.charges.length ? record.charges.map((charge) => `${offer(charge.bucket_id)} at ${charge.tariff}`).join(", ") : NONE);
  fact("record-basis", record?.basis ? [record.basis, ...record.flags].join(", ") : NONE);
  at("record-basis").classList.toggle("flagged", Boolean(record?.flags.length));
  fact("record-cost", record?.costs.length ? several(record.costs) : NONE);
  fact("record-ending", record?.ending ? ending(record) : NONE);
}

// What a killed worker leaves behind is closed by its successor, as far as it is known to have come.
function ending(record) {
  if (record.ending !== "orphaned") return record.ending.replaceAll("_", " ");
  return record.charges.length ? "closed at its checkpoint" : "orphan without a checkpoint";
}

function fact(id, text) {
  write(at(id), text);
  at(id).title = text === NONE ? "" : text;
}

function rail(record) {
  const reached = {
    opened: record ? clock(record.opened_at) : null,
    first: record?.first_token_ms ?? null,
    closed: record?.duration_ms ?? null,
    posted: record?.posted_ms ?? null,
  };
  const stations = [...at("rail").children];
  stations.forEach((station, place) => {
    const time = reached[station.dataset.at];
    const later = stations.slice(place + 1).some((next) => reached[next.dataset.at] !== null);
    station.classList.toggle("done", time !== null);
    station.classList.toggle("passed", later);
    station.lastElementChild.textContent = time === null ? NONE : typeof time === "string" ? time : `+ ${ms(time)}`;
  });
  at("rail").classList.toggle("running", record?.stage === "opened");
}

function classes(tokens) {
  const total = tokens ? Object.values(tokens).reduce((sum, count) => sum + count, 0) : null;
  for (const cell of at("classes").querySelectorAll("dd")) {
    const count = cell.dataset.class === "total" ? total : tokens?.[cell.dataset.class];
    write(cell, count === null || count === undefined ? NONE : whole(count));
  }
}

function list() {
  const sorted = newest();
  for (const old of sorted.slice(ROWS)) if (old.stage === "posted") records.delete(old.request_id);
  at("records").replaceChildren(...sorted.slice(0, ROWS).map(row));
}

function row(record) {
  const tokens = record.tokens;
  const read = tokens ? whole(tokens.input + tokens.cached_input + tokens.cache_write) : NONE;
  const written = tokens ? whole(tokens.output + tokens.reasoning) : NONE;
  const cells = [
    [clock(record.opened_at)], [record.request_id, "code"], [record.model], [read, "number"], [written, "number"],
    [record.charges.length ? record.charges.map((charge) => plain(charge.amount)).join(" + ") : NONE, "number"],
    [ms(record.first_token_ms), "number"], [ms(record.duration_ms), "number"],
    [[record.basis || NONE, ...record.flags].join(", ")], [record.ending ? record.ending.replaceAll("_", " ") : NONE],
    [SAID[record.stage]],
  ];
  const line = make("tr");
  line.append(...cells.map(([text, kind]) => {
    if (kind !== "code") return make("td", text, kind ?? "");
    const cell = make("td");
    cell.append(make("code", text));
    return cell;
  }));
  return line;
}
