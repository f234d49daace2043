// One job by JavaScript: Node.js 18 or later, no package.
//
//     RUNPOD_ENDPOINT_ID=… RUNPOD_API_KEY=… node examples/api_example.mjs workflow.json "a cat" output
//     ENDPOINT_URL=http://127.0.0.1:8000/v2/local node examples/api_example.mjs workflow.json "a cat" output
//
// As a module: import { run } from "./api_example.mjs"; const answer = await run({ workflow, prompt: "a cat" })
import { mkdir, open, readFile } from "node:fs/promises"
import { dirname, join, parse } from "node:path"
import { pathToFileURL } from "node:url"

const { ENDPOINT_URL, RUNPOD_ENDPOINT_ID, RUNPOD_API_KEY = "" } = process.env
const url = ENDPOINT_URL || (RUNPOD_ENDPOINT_ID && `https://api.runpod.ai/v2/${RUNPOD_ENDPOINT_ID}`)
const ENDED = ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]

async function ask(method, route, body) {
  if (!url) throw new Error("set RUNPOD_ENDPOINT_ID and RUNPOD_API_KEY, or ENDPOINT_URL")
  const response = await fetch(`${url}/${route}`, {
    method,
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${RUNPOD_API_KEY}` },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(60_000),
  })
  const text = await response.text()
  if (!response.ok) throw new Error(`${response.status}: ${text.slice(0, 300)}`)
  return JSON.parse(text)
}

/** The worker's response to one job; `tell` is called with the status while the job waits and runs. */
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

/** Save every file of a response below a folder without overwriting any; their paths. */
export async function save(answer, folder) {
  const places = []
  for (const file of answer.files ?? []) {
    const inline = file.image_index === undefined ? file.data : answer.images[file.image_index]
    let content = inline === undefined ? undefined : Buffer.from(inline, "base64")
    if (!content && file.url) {
      const response = await fetch(file.url, { signal: AbortSignal.timeout(600_000) })
      if (!response.ok) throw new Error(`${file.name} cannot be fetched from the bucket: ${response.status}`)
      content = Buffer.from(await response.arrayBuffer())
    }
    if (!content) throw new Error(`${file.name} is in a bucket that cannot be read from here`)
    places.push(await write(join(folder, ...safe(file.name)), content))
  }
  return places
}

/** The parts of a file's name that cannot lead out of a folder. */
const safe = (name) => name.split(/[/\\]/).filter((part) => part.replaceAll(".", "")).map((part) => part.replace(/[^\w.+-]/g, "_"))

async function write(place, content) {
  await mkdir(dirname(place), { recursive: true })
  const { dir, name, ext } = parse(place)
  for (let number = 1; ; number++) {
    const unused = join(dir, `${name}${number > 1 ? `-${number}` : ""}${ext}`)
    try {
      const file = await open(unused, "wx")
      await file.writeFile(content).finally(() => file.close())
      return unused
    } catch (error) {
      if (error.code !== "EEXIST") throw error
    }
  }
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
    const places = await save(answer, folder)
    for (const text of answer.text ?? []) console.log(text)
    for (const place of places) console.log(place)
    if (!places.length && !answer.text?.length) throw new Error("the job made no file and no text")
  } catch (error) {
    console.error(`failed: ${error.message}`)
    process.exit(1)
  }
}
