"""
KServe v2 and Triton's extensions, whatever carries them.

`service` answers, `describe` says what the model is, `statistics` counts; `http_body` and
`grpc_messages` read and write what the two doors beside this package carry, `api/kserve_http.py`
and `api/kserve_grpc.py`; `grpc_inference` is one inference of the second, `grpc_stream` many.
"""
