from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FromAgent(_message.Message):
    __slots__ = ("open", "batch", "finish")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    open: OpenTrial
    batch: Batch
    finish: FinishTrial
    def __init__(self, open: _Optional[_Union[OpenTrial, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., finish: _Optional[_Union[FinishTrial, _Mapping]] = ...) -> None: ...

class FromCollector(_message.Message):
    __slots__ = ("opened", "acknowledged", "finished", "refused")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    acknowledged: Acknowledged
    finished: Finished
    refused: Refused
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., acknowledged: _Optional[_Union[Acknowledged, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ...) -> None: ...

class OpenTrial(_message.Message):
    __slots__ = ("run_id", "trial_id", "schema_version")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    trial_id: str
    schema_version: int
    def __init__(self, run_id: _Optional[str] = ..., trial_id: _Optional[str] = ..., schema_version: _Optional[int] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("trial_id", "last_sequence")
    class LastSequenceEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    trial_id: str
    last_sequence: _containers.ScalarMap[str, int]
    def __init__(self, trial_id: _Optional[str] = ..., last_sequence: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("trial_id", "stream", "sequence", "rows", "arrow_ipc")
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ARROW_IPC_FIELD_NUMBER: _ClassVar[int]
    trial_id: str
    stream: str
    sequence: int
    rows: int
    arrow_ipc: bytes
    def __init__(self, trial_id: _Optional[str] = ..., stream: _Optional[str] = ..., sequence: _Optional[int] = ..., rows: _Optional[int] = ..., arrow_ipc: _Optional[bytes] = ...) -> None: ...

class Acknowledged(_message.Message):
    __slots__ = ("trial_id", "stream", "sequence")
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    trial_id: str
    stream: str
    sequence: int
    def __init__(self, trial_id: _Optional[str] = ..., stream: _Optional[str] = ..., sequence: _Optional[int] = ...) -> None: ...

class FinishTrial(_message.Message):
    __slots__ = ("trial_id", "totals", "trial_json", "service_log")
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    TRIAL_JSON_FIELD_NUMBER: _ClassVar[int]
    SERVICE_LOG_FIELD_NUMBER: _ClassVar[int]
    trial_id: str
    totals: _containers.RepeatedCompositeFieldContainer[StreamTotal]
    trial_json: bytes
    service_log: bytes
    def __init__(self, trial_id: _Optional[str] = ..., totals: _Optional[_Iterable[_Union[StreamTotal, _Mapping]]] = ..., trial_json: _Optional[bytes] = ..., service_log: _Optional[bytes] = ...) -> None: ...

class StreamTotal(_message.Message):
    __slots__ = ("stream", "batches", "rows", "digest")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    stream: str
    batches: int
    rows: int
    digest: bytes
    def __init__(self, stream: _Optional[str] = ..., batches: _Optional[int] = ..., rows: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("trial_id", "differences")
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    trial_id: str
    differences: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, trial_id: _Optional[str] = ..., differences: _Optional[_Iterable[str]] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("trial_id", "reason")
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    trial_id: str
    reason: str
    def __init__(self, trial_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
