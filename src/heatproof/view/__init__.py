"""The interactive viewer: stored results, or a network at work, in a browser on this machine (`heatproof view`).

    interface     what the viewer asks of its parts: a collection of images, pixels, a live network
    opening       a results folder → a collection; `study_collection`, `explained_collection`, `live_collection`
    index         the table of images behind filters, sorting and pages; `listing` the same for lists in memory
    stored_maps   the maps that a study has kept
    regions       what a map foretold of a region, and in words what happened
    viewer        a collection, with or without a live network
    drawing       maps → overlays → text that a browser shows
    pages         the parts of the page as HTML
    answers       what the page answers to every event, as plain values
    layout        gradio's components, and which part shows which answer
    serving       the server: this machine only

Reads results and draws; nothing here loads torch. The room `live` has the network.
"""
