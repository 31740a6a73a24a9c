"""Interactive views of the notebooks. Each view has a static twin for papermill, GitHub and the HTML report.

A view is a pure function from the values of its controls to an output (a figure or a table). Tests call this function.
``frame.interactive_or_static`` adds the controls in a live notebook. Elsewhere it shows the initial output.

===============  =======================  ========================================================
module           view                     what can be changed
===============  =======================  ========================================================
``text_views``   ``verifier_explorer``    the response and the ground truth that the tiers judge
``text_views``   ``response_browser``     step, reward, verdict and subject of responses
``grpo_views``   ``advantage_explorer``   the rewards of a group and the scaling
``grpo_views``   ``clip_explorer``        both epsilons and the advantage on the clip surface
``model_views``  ``lora_explorer``        rank, targets and GPU, for parameters and memory
``model_views``  ``playground``           your own problem, for the base and the trained model
``token_views``  ``token_inspector``      step, group, response, loss and update of one step
``curve_views``  ``projection_explorer``  the part of the run that a curve is fitted to
``curve_views``  ``LiveReward``           no controls, it is redrawn during training
===============  =======================  ========================================================

Import views from their modules, so that a notebook without a model does not load PyTorch.
"""
