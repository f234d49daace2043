// Loaded by ComfyUI's editor from the gateway: what a person refreshes is asked of the endpoint, not of its copy here.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"

const ASKING = ["Asking the endpoint for its node classes and models", "If no worker is running, this starts one."]

/** Show a message until the function that is returned is called. The editor has two ways, by its version. */
function showWhile(summary, detail) {
  const toast = app.extensionManager.toast
  if (toast.loading) {
    const id = toast.loading(summary, { description: detail })
    return () => toast.dismiss(id)
  }
  const message = { severity: "info", summary, detail }
  toast.add(message)
  return () => toast.remove(message)
}

/** Ask the endpoint; why that failed, if it did. */
async function ask() {
  const done = showWhile(...ASKING)
  try {
    const response = await api.fetchApi("/gateway/refresh", { method: "POST" })
    return response.ok ? (await response.json()).error : `the gateway answered HTTP ${response.status}`
  } catch {
    return "the gateway did not answer: is it running?"
  } finally {
    done()
  }
}

app.registerExtension({
  name: "gateway.refresh",
  async setup() {
    const language = () => app.extensionManager.setting.get("Comfy.Locale")
    const refresh = app.refreshComboInNodes
    let shown = language()
    app.refreshComboInNodes = async function (...given) {
      const isTranslation = shown !== language() // the editor reads the classes again for another language
      shown = language()
      const error = isTranslation ? "" : await ask()
      if (error) {
        app.extensionManager.toast.add({ severity: "error", summary: "The endpoint was not asked", detail: error })
      }
      return refresh.apply(this, given)
    }
  },
})
