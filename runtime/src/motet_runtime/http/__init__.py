"""The HTTP API: LoRAX and OpenAI routes on the serving port, the operator's and the kubelet's on the admin port."""
