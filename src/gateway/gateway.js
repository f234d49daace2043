// Loaded by ComfyUI's editor from the gateway: what a person refreshes is asked of the endpoint, not of its copy here.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"

app.registerExtension({
  name: "gateway.refresh",
  async setup() {
    const refresh = app.refreshComboInNodes
    app.refreshComboInNodes = async function (...given) {
      app.extensionManager?.toast?.add({
        severity: "info", summary: "Asking the endpoint for its node classes",
        detail: "If no worker is running, this starts one.", life: 5000,
      })
      const response = await api.fetchApi("/gateway/refresh", { method: "POST" })
      const { error } = await response.json()
      if (error) app.extensionManager?.toast?.add({ severity: "error", summary: "The endpoint did not answer", detail: error })
      return refresh.apply(this, given)
    }
  },
})
