"""The draft engine: it speaks ComfyUI's protocol and draws with Pillow.

For machines without ComfyUI, models or GPU. It answers as a real ComfyUI 0.33.0 was observed to: events, validation
errors, history, caching. Nodes that need no model really run; instead of running a model it draws a picture that shows
prompt, seed, steps and size and the word DRAFT: the same input gives the same picture. The code that runs jobs does
not know whether it talks to this engine or to ComfyUI.

    schema      the node classes that it has: inputs, types and limits
    validation  ComfyUI's validation errors, in ComfyUI's words
    values      the values that pass along links between nodes
    images      image nodes that need no model
    texts       nodes for strings and plain values
    saving      nodes that write files
    diffusion   stand-ins for the nodes that use a model, and the picture that they draw
    executor    runs one prompt: order, cache, nodes; served by the protocol server (`src/protocol/`)

Started as `python -m src.draft` with ComfyUI's flags.
"""
