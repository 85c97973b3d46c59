"use strict";
// Copies the text of the element that a button names.
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.addEventListener("click", async () => {
    const value = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(value.textContent);
      button.textContent = button.dataset.copied;
    } catch {
      // Without HTTPS there is no clipboard: select the text for the keyboard.
      getSelection().selectAllChildren(value);
    }
  });
}
