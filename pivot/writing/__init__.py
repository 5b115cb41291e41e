"""New captions: by a language model, from keywords, by a template; debiased, and looked through."""
