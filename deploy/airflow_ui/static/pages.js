"use strict";
// The pages follow the theme that Airflow keeps in this browser, else the system's; so does a framed report.
const follow = () => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {
    // Storage is switched off: the system's theme it is.
  }
  const documents = [document, ...[...document.querySelectorAll("iframe.report")].map((frame) => frame.contentDocument)];
  for (const one of documents) {
    if (!one) continue;
    if (chosen === "light" || chosen === "dark") one.documentElement.dataset.theme = chosen;
    else delete one.documentElement.dataset.theme;
  }
};
follow();
addEventListener("storage", follow);
addEventListener("DOMContentLoaded", () => {
  for (const frame of document.querySelectorAll("iframe.report")) frame.addEventListener("load", follow);
  follow();
  const seconds = Number(document.body.dataset.againS);
  if (seconds > 0) setTimeout(() => location.reload(), 1000 * seconds);
});
