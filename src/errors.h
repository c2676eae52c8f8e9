/*
 * errors.h
 *		The SQLSTATEs of eventsrc: class VE, one code a kind of mistake.
 *
 * Conditions that PostgreSQL itself knows keep PostgreSQL's code, because
 * drivers and poolers act on those: 42501 (privilege), 25006 (read-only
 * transaction, standby), 40001 (serialization failure).
 */
#ifndef EVENTSRC_ERRORS_H
#define EVENTSRC_ERRORS_H

#include "postgres.h"

/* an append found its stream at another version than it expected */
#define ERRCODE_ES_VERSION_CONFLICT		MAKE_SQLSTATE('V', 'E', '0', '0', '1')
/* no store of that name */
#define ERRCODE_ES_UNKNOWN_STORE		MAKE_SQLSTATE('V', 'E', '0', '0', '2')
/* a store cannot be made or dropped under that name */
#define ERRCODE_ES_INVALID_STORE		MAKE_SQLSTATE('V', 'E', '0', '0', '3')
/* an argument is NULL, empty, too long, negative or does not fit the others */
#define ERRCODE_ES_INVALID_ARGUMENT		MAKE_SQLSTATE('V', 'E', '0', '0', '4')
/* a version or position past the end, or a stream without events, was asked for */
#define ERRCODE_ES_NO_SUCH_VERSION		MAKE_SQLSTATE('V', 'E', '0', '0', '5')
/* UPDATE, DELETE, MERGE, ON CONFLICT DO UPDATE or TRUNCATE on an append-only table */
#define ERRCODE_ES_APPEND_ONLY			MAKE_SQLSTATE('V', 'E', '0', '0', '6')
/* a function cannot serve as reducer, or an aggregate type is unknown */
#define ERRCODE_ES_INVALID_AGGREGATE	MAKE_SQLSTATE('V', 'E', '0', '0', '7')
/* a reducer returned NULL or is gone */
#define ERRCODE_ES_REDUCER_FAILED		MAKE_SQLSTATE('V', 'E', '0', '0', '8')
/* a relay cannot be made, found or changed */
#define ERRCODE_ES_INVALID_RELAY		MAKE_SQLSTATE('V', 'E', '0', '0', '9')
/* eventsrc is not in shared_preload_libraries, or a worker is missing */
#define ERRCODE_ES_NOT_RUNNING			MAKE_SQLSTATE('V', 'E', '0', '1', '0')
/* the store's tables are not as eventsrc made them */
#define ERRCODE_ES_STORE_DAMAGED		MAKE_SQLSTATE('V', 'E', '0', '1', '1')
/* a transaction that appended cannot be prepared for two-phase commit */
#define ERRCODE_ES_PREPARED				MAKE_SQLSTATE('V', 'E', '0', '1', '2')
/* a user's trigger suppressed the event that an append was to write */
#define ERRCODE_ES_SUPPRESSED			MAKE_SQLSTATE('V', 'E', '0', '1', '3')
/* a month's partition is missing and cannot be made now */
#define ERRCODE_ES_NO_PARTITION			MAKE_SQLSTATE('V', 'E', '0', '1', '4')
/* an append to a stream that es_close_stream() closed */
#define ERRCODE_ES_STREAM_CLOSED		MAKE_SQLSTATE('V', 'E', '0', '1', '5')
/* a command would break a store */
#define ERRCODE_ES_GUARDED				MAKE_SQLSTATE('V', 'E', '0', '1', '6')

/* an event's data does not fit its JSON Schema, or its type is unknown to a strict store */
#define ERRCODE_ES_INVALID_EVENT		MAKE_SQLSTATE('V', 'E', '0', '1', '7')
/* an event type cannot be registered, changed or found; no JSON Schema; incompatible versions */
#define ERRCODE_ES_INVALID_EVENT_TYPE	MAKE_SQLSTATE('V', 'E', '0', '1', '8')
/* an upcaster cannot be registered or found, failed, or leads nowhere */
#define ERRCODE_ES_INVALID_UPCASTER		MAKE_SQLSTATE('V', 'E', '0', '1', '9')

#endif							/* EVENTSRC_ERRORS_H */
