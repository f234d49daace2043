// @saintno/comfyui-sdk: node sdk.mjs URL PICTURE BROKEN SLOW. Prints what came of each step, one JSON a line.
// SLOW is a workflow in JSON, which is cancelled.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [url, picture, broken, slow] = process.argv.slice(2);
const { ComfyApi, CallWrapper, PromptBuilder } = createRequire(`${process.cwd()}/`)("@saintno/comfyui-sdk");

const api = await new ComfyApi(url, "sdk-client").init().waitForReady();
const tell = (step, outcome) => console.log(JSON.stringify([step, outcome]));
const saving = (file) => ({
  1: { class_type: "LoadImage", inputs: { image: file } },
  2: { class_type: "SaveImage", inputs: { images: ["1", 0], filename_prefix: "sdk" } },
});

// The pictures that came, the previews and the steps that were seen; or the first error.
const outcomeOf = (workflow, onStart = () => {}) =>
  new Promise((resolve) => {
    const prompt = new PromptBuilder(workflow, [], ["images"]).setOutputNode("images", Object.keys(workflow).at(-1));
    let steps = 0;
    new CallWrapper(api, prompt)
      .onProgress(() => steps++ || onStart())
      .onFinished(({ images }) => resolve({ images: images.images, steps }))
      .onFailed((error) => resolve({ error: error.name, message: error.message, cause: error.cause, steps }))
      .run();
  });

const uploaded = await api.uploadImage(readFileSync(picture), "sdk.png");
await api.uploadImage(readFileSync(broken), "sdk-broken.png");
tell("uploaded", uploaded.info);
const saved = await outcomeOf(saving("sdk.png"));
tell("saved", saved);
tell("shown", saved.images && (await (await fetch(api.getPathImage(saved.images[0]))).arrayBuffer()).byteLength);
tell("refused", await outcomeOf(saving("no-such-file.png")));
tell("failed", await outcomeOf(saving("sdk-broken.png")));
tell("cancelled", await outcomeOf(JSON.parse(slow), () => api.interrupt()));
tell("saved again", await outcomeOf(saving("sdk.png")));
process.exit(0);
