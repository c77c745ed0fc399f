"""Names that other programs see: label and annotation keys, the finalizer, reasons. Changing one is a migration."""

# On every Job and pod that we launch; lists and watches select by it.
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "training-dispatcher"
SELECTOR = f"{MANAGED_BY}={MANAGER}"
MODEL_ID = "training-dispatcher/model-id"
# On every Job: the queue that its request came from. Jobs without it are of the first of QUEUE_NAMES.
QUEUE = "training-dispatcher/queue"
# Kubernetes' own, on the pods of every Job: the Job's uid, and its name, which nobody else can write there.
POD_OF = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"
# Kubernetes' own, on the pods of an Indexed Job, as label and annotation: which of its nodes the pod is, from 0.
INDEX = "batch.kubernetes.io/job-completion-index"
# On the pods of a training on several nodes, "true": the Service that names them selects by it.
TEAM = "training-dispatcher/team"

# Holds a Job until its outcome was acknowledged by the portal: the Job is the outbox.
FINALIZER = "training-dispatcher/report"

# Written with the Job, so that whoever finds it half-launched can continue without the message.
MESSAGE_ID = "training-dispatcher/message-id"
REQUEST = "training-dispatcher/request"
RUN_ID = "training-dispatcher/run-id"
QUEUED_AT = "training-dispatcher/queued-at"  # when the message was put on the queue (RFC 3339)

# Written with the Job: what the portal showed before the launch, which is no news if it shows it again soon after.
STATUS_BEFORE = "training-dispatcher/status-before"

# Written with the resume patch: the launch is over. Its absence means half-launched.
LAUNCHED_AT = "training-dispatcher/launched-at"
LAUNCHED_BY = "training-dispatcher/launched-by"  # an id of that process
# "true" or "false": whether the portal acknowledged Processing for this Job.
ACKNOWLEDGED = "training-dispatcher/processing-acknowledged"
# When it did, where that was later than the launch.
ACKNOWLEDGED_AT = "training-dispatcher/processing-acknowledged-at"

# With scoped credentials, written whenever the Job's Secret was: until when the signatures in it are good; when they
# were made, and a fingerprint of the keys that signed. Renewal goes by them.
CREDENTIALS_UNTIL = "training-dispatcher/credentials-until"
CREDENTIALS_MADE = "training-dispatcher/credentials-made"
# The dataset's container, where only the training itself has learned it.
DATASET = "training-dispatcher/dataset"

# Pods that Kubernetes took away (preempted, drained, lost), as a JSON list of uids.
DISRUPTED = "training-dispatcher/disrupted-pods"
# Written with the stop: the verdict on a Job that would otherwise run on, as JSON {code, sentence}.
STOPPED = "training-dispatcher/stopped"
# The progress message that the portal was last sent for the Job, so that a restart sends none of them again.
TOLD = "training-dispatcher/told"
# When the portal first refused the outcome: what it refuses for a day is given up, if it takes others'.
REFUSED_AT = "training-dispatcher/report-refused-at"
# Written with the one patch after the portal's acknowledgement: what was reported, as JSON; and a label of this name,
# by which the Job leaves our lists and watches.
REPORTED = "training-dispatcher/reported"
REPORTED_AT = "training-dispatcher/reported-at"

# The Jobs that may need work, and those that only their users and TTL still need.
UNREPORTED_JOBS = f"{SELECTOR},!{REPORTED}"
REPORTED_JOBS = f"{SELECTOR},{REPORTED}"

# The ConfigMap beside the Jobs by which people pause the intake of all dispatchers of the namespace (manifests/base).
PAUSE = "training-dispatcher-pause"

TRAINER_CONTAINER = "trainer"
# The volume with the Job's Secret, and where the trainer has it. The Secret is named as the Job.
CREDENTIALS_VOLUME = "training-credentials"
CREDENTIALS_DIR = "/credentials"
# The headless Service of a team's pods (manifests/base), and the port that torch's processes meet on.
TEAM_SERVICE = "model-training"
TEAM_MASTER_PORT = 29500
KUEUE_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# Its value until the portal was told. Nobody has a LocalQueue of this name, so Kueue keeps the Job suspended and lets
# the label be changed; a Job without it may be labelled by Kueue, for a LocalQueue named default, and resumed (F51).
KUEUE_HOLD = "training-dispatcher-hold"
# Of a Job that Kueue may start with fewer pods than it has asked for.
KUEUE_PARTIAL = "kueue.x-k8s.io/job-min-parallelism"
GPU_RESOURCE = "nvidia.com/gpu"
