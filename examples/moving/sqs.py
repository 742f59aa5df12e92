"""Print the messages of an SQS queue for `minibroker import`.

    python sqs.py https://sqs.eu-central-1.amazonaws.com/123456789012/jobs [--take] > jobs.jsonl

Without --take they are hidden for HIDDEN_S, and come back then. With it each ten are deleted when they are
written. The region, the credentials and the endpoint are those of boto3's environment. Delayed messages are not
handed out, and so not printed: run it again when they are due. Needs boto3.
"""

from __future__ import annotations

import os
import sys

import boto3
from carry import write

HIDDEN_S = 3_600


def main(url: str, *flags: str) -> None:
    """Receive until nothing comes any more."""
    client = boto3.client("sqs")
    while True:
        answer = client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=2,
            VisibilityTimeout=HIDDEN_S,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["MessageGroupId"],
        )
        messages = answer.get("Messages", [])
        if not messages:
            return
        for message in messages:
            attributes = message.get("MessageAttributes", {})
            headers = {
                name: value["StringValue"]
                for name, value in attributes.items()
                if "StringValue" in value
            }
            key = message.get("Attributes", {}).get("MessageGroupId")
            write(message["Body"].encode(), headers=headers, key=key)
        sys.stdout.flush()
        if "--take" in flags:
            if os.path.isfile("/dev/stdout"):
                os.fsync(sys.stdout.fileno())
            entries = [
                {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]}
                for index, message in enumerate(messages)
            ]
            failed = client.delete_message_batch(QueueUrl=url, Entries=entries).get("Failed", [])
            if failed:
                sys.exit(
                    f"{len(failed)} of the last {len(messages)} were written and not deleted: {failed}"
                )


if __name__ == "__main__":
    main(*sys.argv[1:])
