"""The draft engine: it speaks ComfyUI's protocol and draws with Pillow.

For machines without ComfyUI, models or GPU. It answers what a real ComfyUI 0.3.64 was seen to answer: events,
validation errors, history, caching. Nodes that need no model really run; in the place of a model it draws a picture
that shows prompt, seed, steps and size and the word DRAFT, equal for equal input. Nothing in the job path knows it.

    schema      the node classes it has: inputs, types and limits
    validation  what ComfyUI refuses, in ComfyUI's words
    values      what runs along its links
    images      nodes for pictures that need no model
    texts       nodes for texts and plain values
    saving      nodes that write files
    diffusion   nodes that stand in for a model, and the picture they draw
    executor    runs one prompt: order, cache, nodes; a protocol server (`src/protocol/`) is put over it

Started as `python -m src.draft` with ComfyUI's flags.
"""
