"""The model server: an HTTP front with limits, the socket-free application behind it, and the process around
both.

``http`` owns sockets and every limit on them; ``app`` maps an outer request to an outer response and opens
what is sealed; ``routes`` answers the Open Inference Protocol inside the seal; ``lifecycle`` starts and
drains the process. Nothing of a request that was sealed reaches a log line, a metric or an outer answer.
"""
