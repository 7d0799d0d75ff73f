"""The interactive viewer: stored results, or a network at work, in a browser on this machine (`heatproof view`).

    interface     what the viewer asks of its parts: a collection of images, pixels, a live network
    opening       a results folder → a collection; `study_collection`, `explained_collection`, `live_collection`
    index         the table of images behind filters, sorting and pages
    stored_maps   the maps that a study has kept
    regions       what a map foretold of a region, and in words what happened
    drawing       maps → overlays → text that a browser shows
    pages         the parts of the page as HTML
    layout        gradio's components and which part answers which event
    serving       the server: this machine only

Reads results and draws; nothing here loads torch. The room `live` has the network.
"""
