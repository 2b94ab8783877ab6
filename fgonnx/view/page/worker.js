import { Engine } from "./engine.js";

const engine = new Engine();

addEventListener("message", async ({ data: { id, call, given } }) => {
  try {
    postMessage({ id, found: await engine[call](given) });
  } catch (error) {
    postMessage({ id, error: String(error?.message ?? error) });
  }
});
