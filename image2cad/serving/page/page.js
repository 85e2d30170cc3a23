// What a keyboard, a phone and a finger expect of the page, and gradio does not do by itself.
() => {
  const near = (event, place) => event.target instanceof Element && event.target.closest(place);

  document.addEventListener("keydown", (event) => {
    const editor = near(event, ".cm-editor");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      const button = document.querySelector(
        near(event, "#first, #second") ? "#score" : near(event, "#program") ? "#rebuild" : "#start");
      event.preventDefault();
      event.stopPropagation();
      // What was typed last is on its way to gradio.
      setTimeout(() => button && button.click(), 100);
    } else if (event.key === "Tab" && editor) {
      event.stopPropagation(); // the editor would take it for spaces, and nobody would get out
    } else if (event.key === "Enter" && near(event, "#numbers input[type=number]")) {
      event.target.blur(); // gradio takes the number then
      event.target.focus();
    }
  }, true);

  // A slider that is moved by keys is let go when no key has moved it for a moment.
  const waiting = new WeakMap();
  document.addEventListener("keyup", (event) => {
    if (!near(event, "#numbers input[type=range]") || event.key === "Tab") return;
    const slider = event.target;
    clearTimeout(waiting.get(slider));
    waiting.set(slider, setTimeout(
      () => slider.dispatchEvent(new PointerEvent("pointerup", {bubbles: true})), 300));
  }, true);

  // Buttons that show a picture or a sign only are named after it, for who cannot see it.
  const nameButtons = () => {
    for (const button of document.querySelectorAll("button:not([aria-label])")) {
      if (button.innerText.trim() || button.title) continue;
      const file = (button.querySelector("img")?.src || "").split("/").pop().split(".")[0];
      const block = button.closest(".block")?.querySelector("label, [data-testid=block-label]");
      const name = file ? `Picture ${file}` : (block?.innerText || "Button").trim();
      button.setAttribute("aria-label", name);
    }
    for (const empty of document.querySelectorAll("div.empty[aria-label]:not([role])"))
      empty.setAttribute("role", "img"); // only what has a role may have a name
  };
  new MutationObserver(nameButtons).observe(document.body, {childList: true, subtree: true});
  nameButtons();

  // On a narrow screen what is going on is below the form.
  document.addEventListener("click", (event) => {
    const button = near(event, "#start, #batch-start");
    const message = document.querySelector("#message");
    if (button && message && window.innerWidth < 900)
      message.scrollIntoView({behavior: "smooth", block: "start"});
  });
}
