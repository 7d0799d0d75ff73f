"""The call styles of other libraries, on heatproof's methods and metrics: change the import, keep the code.

heatproof.compat.pytorch_grad_cam      GradCAM(model=, target_layers=)(input_tensor=, targets=), and its `utils`
heatproof.compat.torchcam              extractors, `methods` and `utils`
heatproof.compat.captum                attribute(inputs, target=)
heatproof.compat.quantus               explain_func; our metrics with the signature of theirs
heatproof.compat.torchmetrics          our metrics as `torchmetrics.Metric`
"""
