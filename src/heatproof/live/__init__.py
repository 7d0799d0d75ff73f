"""The part of the viewer that needs torch: a network that explains when it is asked, and the images of a study."""
