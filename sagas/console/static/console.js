// Live updates: fetches the present page again every few seconds, and replaces the parts that are marked as live.
// Without this file every page works, and shows what was true when it was loaded.
"use strict";

(() => {
  const SECONDS = 5;
  const live = () => document.querySelectorAll("[data-live]");
  if (live().length === 0) return;

  let on = sessionStorage.getItem("live") !== "off";
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet live";
  const label = () => {
    button.textContent = on ? "Live" : "Not live";
    button.setAttribute("aria-pressed", String(on));
    button.title = on ? "The page updates itself; press to stop that" : "Press to have the page update itself";
  };
  button.addEventListener("click", () => {
    on = !on;
    sessionStorage.setItem("live", on ? "on" : "off");
    label();
    if (on) update();
  });
  label();
  document.querySelector("header.top").append(button);

  // What somebody reads with the keyboard or has selected must not be pulled away.
  const busy = (part) =>
    part.contains(document.activeElement) || (String(getSelection()) !== "" && part.contains(getSelection().anchorNode));

  async function update() {
    try {
      const answer = await fetch(location.href, { headers: { "X-Live": "1" }, redirect: "error" });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of live()) {
        const other = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
        if (other === null || busy(part) || other.innerHTML === part.innerHTML) continue;
        const open = [...part.querySelectorAll("details")].map((details) => details.open);
        part.replaceChildren(...other.childNodes);
        part.querySelectorAll("details").forEach((details, place) => (details.open ||= open[place] ?? false));
      }
      button.classList.remove("stale");
    } catch {
      button.classList.add("stale");
      button.title = "The last update failed; this page may be old";
    }
  }

  setInterval(() => {
    if (on && !document.hidden) update();
  }, SECONDS * 1000);
})();
