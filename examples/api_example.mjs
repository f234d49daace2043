// One job by JavaScript: Node.js 18 or later, no package.
//
//     RUNPOD_ENDPOINT_ID=… RUNPOD_API_KEY=… node examples/api_example.mjs workflow.json "a cat" output
//     ENDPOINT_URL=http://127.0.0.1:8000/v2/local node examples/api_example.mjs workflow.json "a cat" output
//
// As a module: import { run } from "./api_example.mjs"; const answer = await run({ workflow, prompt: "a cat" })
import { mkdir, readFile, writeFile } from "node:fs/promises"
import { basename, join } from "node:path"
import { pathToFileURL } from "node:url"

const url = process.env.ENDPOINT_URL ?? `https://api.runpod.ai/v2/${process.env.RUNPOD_ENDPOINT_ID}`
const ENDED = ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]

async function ask(method, route, body) {
  const response = await fetch(`${url}/${route}`, {
    method,
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${process.env.RUNPOD_API_KEY ?? ""}` },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(60_000),
  })
  const text = await response.text()
  if (!response.ok) throw new Error(`${response.status}: ${text.slice(0, 300)}`)
  return JSON.parse(text)
}

/** The worker's answer to one job; `tell` hears the status while it waits and runs. */
export async function run(input, tell = () => {}) {
  let status = await ask("POST", "run", { input })
  for (let wait = 250; !ENDED.includes(status.status); wait = Math.min(wait * 1.3, 2000)) {
    tell(status)
    await new Promise((done) => setTimeout(done, wait))
    status = await ask("GET", `status/${status.id}`)
  }
  const output = status.output ?? {}
  if (status.status !== "COMPLETED" || output.status !== "success") {
    throw new Error(output.error ?? status.error ?? `the job is ${status.status}, without a result`)
  }
  return output
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [file, prompt, folder = "output"] = process.argv.slice(2)
  if (!file) {
    console.error("usage: node api_example.mjs WORKFLOW.json [PROMPT] [FOLDER]")
    process.exit(2)
  }
  try {
    const workflow = JSON.parse(await readFile(file, "utf8"))
    const answer = await run({ workflow, ...(prompt && { prompt }) }, ({ status, output }) =>
      console.error(output?.percent ? `${output.percent} % ${output.node}` : status))
    await mkdir(folder, { recursive: true })
    for (const [number, image] of answer.images.entries()) {
      const place = join(folder, basename(answer.filenames[number]))
      await writeFile(place, Buffer.from(image, "base64"))
      console.log(place)
    }
  } catch (error) {
    console.error(`failed: ${error.message}`)
    process.exit(1)
  }
}
