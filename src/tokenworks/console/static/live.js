// The live page: keeps one event stream open to the office and hands each event to the part of the page it concerns.

import * as books from "./books.js";
import * as record from "./record.js";
import * as talk from "./talk.js";
import { events } from "./stream.js";

const RETRY_FIRST_MS = 400;
const RETRY_LONGEST_MS = 8000;
const at = (id) => document.getElementById(id);

const heard = {
  state(content) {
    at("trouble").hidden = true;
    books.state(content);
    content.records.forEach(record.take);
  },
  record(content) {
    books.reservation(content);
    record.take(content);
  },
  verifying: books.verifying,
  verified: books.verified,
  trouble(content) {
    at("trouble").textContent = content.message;
    at("trouble").hidden = false;
  },
};

async function follow() {
  let pause = RETRY_FIRST_MS;
  for (;;) {
    try {
      const reply = await fetch("/live/events", { headers: { accept: "text/event-stream" } });
      if (reply.status === 401) return location.assign("/");
      if (reply.ok) {
        pause = RETRY_FIRST_MS;
        link("good", "Live");
        for await (const { name, data } of events(reply.body)) heard[name]?.(JSON.parse(data));
      } else {
        heard.trouble((await reply.json()).error);
      }
    } catch (fault) {
      if (!(fault instanceof TypeError)) console.error(fault);
    }
    link("waiting", "Reconnecting");
    await new Promise((resume) => { setTimeout(resume, pause); });
    pause = Math.min(2 * pause, RETRY_LONGEST_MS);
  }
}

function link(state, text) {
  at("link").dataset.state = state;
  at("link").lastElementChild.textContent = text;
}

talk.start(record);
follow();
