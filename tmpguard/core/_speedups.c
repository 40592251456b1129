/* The steps that every request pays for, compiled (DESIGN, decision 9).

   This extension is optional. tmpguard/core/speedups.py says what each part does, and has the same in Python
   for where the extension is missing; the tests run with and without it. What is rare, and every refusal, is
   left to the Python code.

   All of it runs while the global interpreter lock is held, which tmpguard requires, and in the main
   interpreter. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* Changes together with the number in speedups.py whenever the two would no longer fit. */
#define REVISION 6

#if PY_VERSION_HEX < 0x030d0000
#define Py_IsFinalizing _Py_IsFinalizing
#define PyObject_GetOptionalAttr _PyObject_LookupAttr
#endif

#if PY_VERSION_HEX >= 0x030d0000
/* Exported, but declared in an internal header only. */
PyAPI_FUNC(int) _PyObject_GetMethod(PyObject *object, PyObject *name, PyObject **method);
#endif

#define MOST_ARGUMENTS 8

static PyInterpreterState *main_interpreter;

/* What configure() was given. */
static PyObject *current_variable;  /* the context variable with the current invocation, or None */
static PyTypeObject *plain_type;    /* Invocation */
static PyObject *no_volume;         /* what its attribute `mounted` is until it has used files */

/* What an iteration ends with, and the iterable of a body that is over. */
static PyObject *end_of_body, *nothing;

static PyObject *str_app, *str_buffer, *str_bundled, *str_close, *str_cwd, *str_end,
    *str_guard, *str_invocation, *str_made_namespace, *str_mode, *str_mounted, *str_name, *str_prefix,
    *str_raw, *str_abandon, *str_encoding, *str_errors, *str_newline, *str_extensions, *str_http, *str_pathsend,
    *str_type, *str_websocket, *str_above;

/* --- the context variable --------------------------------------------------------------------------------- */

/* The current invocation, or None. A new reference; NULL with an exception. */
static PyObject *
get_current(void)
{
    PyObject *found = NULL;
    if (current_variable == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "tmpguard.core._speedups is not configured");
        return NULL;
    }
    if (PyContextVar_Get(current_variable, NULL, &found) < 0) {
        return NULL;
    }
    return found != NULL ? found : Py_NewRef(Py_None);
}

static int
set_current(PyObject *invocation)
{
    PyObject *token = PyContextVar_Set(current_variable, invocation);
    if (token == NULL) {
        return -1;
    }
    Py_DECREF(token);
    return 0;
}

/* The same while an exception may be set, which is kept. */
static int
restore_current(PyObject *before)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    int failed = set_current(before);
    if (failed) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        return -1;
    }
    PyErr_Restore(type, value, traceback);
    return 0;
}

/* --- the fields that are read here ------------------------------------------------------------------------- */

/* The fields of each base class, by which its structure and all else is made below. */

/* One generation of a guard's cache: the base class of Known. */
#define KNOWN_FIELDS(FIELD)                                                                         \
    FIELD(Known, expires) FIELD(Known, paths) FIELD(Known, process_directory) FIELD(Known, relative)

/* The base class of Knowing, and so of MountTable. */
#define TABLE_FIELDS(FIELD) FIELD(Table, known) FIELD(Table, tails)

/* The base class of Policy, and so of Guard. */
#define POLICY_FIELDS(FIELD)                                                                        \
    FIELD(Policy, quick_table) FIELD(Policy, plain_invocation) FIELD(Policy, enforce) FIELD(Policy, on_report)

/* The base class of Invocation. It has a dictionary of its own, because one that Python adds to a class comes
   with room for every attribute: most invocations end before they have any. (Up to 3.11 it is made at once, but
   empty: see invocation_new().) */
#define INVOCATION_FIELDS(FIELD) FIELD(Invocation, guard) FIELD(Invocation, ended) FIELD(Invocation, touched)
#define INVOCATION_DICT(FIELD) FIELD(Invocation, dict)

/* The base class of the ASGI and WSGI middlewares. */
#define MIDDLEWARE_FIELDS(FIELD) FIELD(Middleware, app) FIELD(Middleware, guard)

#define NO_DICT(FIELD)

#define DECLARE(STRUCT, NAME) PyObject *NAME;
#define VISIT(STRUCT, NAME) Py_VISIT(self->NAME);
#define CLEAR(STRUCT, NAME) Py_CLEAR(self->NAME);
#define MEMBER(STRUCT, NAME) {#NAME, T_OBJECT_EX, offsetof(STRUCT, NAME), 0, NULL},

#define FIELDS_STRUCT(STRUCT, FIELDS, DICT)                                                         \
    typedef struct {                                                                                \
        PyObject_HEAD                                                                               \
        FIELDS(DECLARE) DICT(DECLARE)                                                               \
    } STRUCT;

FIELDS_STRUCT(Known, KNOWN_FIELDS, NO_DICT)
FIELDS_STRUCT(Table, TABLE_FIELDS, NO_DICT)
FIELDS_STRUCT(Policy, POLICY_FIELDS, NO_DICT)
FIELDS_STRUCT(Invocation, INVOCATION_FIELDS, INVOCATION_DICT)
FIELDS_STRUCT(Middleware, MIDDLEWARE_FIELDS, NO_DICT)

/* Not by way of Py_TYPE(self)->tp_clear: in a derived class that would clear the dictionary a second time. */
#define DEALLOC(LOWER, STRUCT)                                                                      \
    static void LOWER##_dealloc(PyObject *self)                                                     \
    {                                                                                               \
        PyObject_GC_UnTrack(self);                                                                  \
        LOWER##_clear((STRUCT *)self);                                                              \
        Py_TYPE(self)->tp_free(self);                                                               \
    }

/* Takes any arguments: the constructors of the derived classes check them. */
static PyObject *
fields_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    return type->tp_alloc(type, 0);
}

static PyObject *
invocation_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *self = type->tp_alloc(type, 0);
    if (self != NULL) {
        ((Invocation *)self)->ended = Py_NewRef(Py_False);
        ((Invocation *)self)->touched = Py_NewRef(Py_False);
#if PY_VERSION_HEX < 0x030c0000
        /* There, a collection may run while the dictionary is made, and a finalizer may use the invocation: of
           the two that are made, the one with what the finalizer has mounted would be lost. */
        if ((((Invocation *)self)->dict = PyDict_New()) == NULL) {
            Py_CLEAR(self);
        }
#endif
    }
    return self;
}

static PyGetSetDef dict_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL},
};

/* The arguments at the end are other slots of the type. */
#define FIELDS_TYPE(STRUCT, LOWER, FIELDS, DICT, ...)                                               \
    static int LOWER##_traverse(STRUCT *self, visitproc visit, void *arg)                           \
    {                                                                                               \
        FIELDS(VISIT) DICT(VISIT)                                                                   \
        return 0;                                                                                   \
    }                                                                                               \
    static int LOWER##_clear(STRUCT *self)                                                          \
    {                                                                                               \
        FIELDS(CLEAR) DICT(CLEAR)                                                                   \
        return 0;                                                                                   \
    }                                                                                               \
    DEALLOC(LOWER, STRUCT)                                                                          \
    static PyMemberDef LOWER##_members[] = {FIELDS(MEMBER){NULL}};                                  \
    static PyTypeObject STRUCT##Fields = {                                                          \
        PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tmpguard.core._speedups." #STRUCT "Fields",       \
        .tp_basicsize = sizeof(STRUCT),                                                             \
        .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,                  \
        .tp_traverse = (traverseproc)LOWER##_traverse,                                              \
        .tp_clear = (inquiry)LOWER##_clear,                                                         \
        .tp_dealloc = LOWER##_dealloc,                                                              \
        .tp_members = LOWER##_members,                                                              \
        __VA_ARGS__                                                                                 \
    }

FIELDS_TYPE(Known, known, KNOWN_FIELDS, NO_DICT, .tp_new = fields_new);
FIELDS_TYPE(Table, table, TABLE_FIELDS, NO_DICT, .tp_new = fields_new);
FIELDS_TYPE(Policy, policy, POLICY_FIELDS, NO_DICT, .tp_new = fields_new);
FIELDS_TYPE(Invocation, invocation, INVOCATION_FIELDS, INVOCATION_DICT, .tp_new = invocation_new,
            .tp_dictoffset = offsetof(Invocation, dict), .tp_getset = dict_getset);
FIELDS_TYPE(Middleware, middleware, MIDDLEWARE_FIELDS, NO_DICT, .tp_new = fields_new);

/* --- a request begins and ends ------------------------------------------------------------------------------ */

/* Whether the audit hook is armed and everything that an invocation needs is installed. */
static bool ready;

/* What Guard.invocation() and Invocation.__init__() do. */
static PyObject *
new_plain_invocation(PyObject *guard)
{
    PyObject *invocation = invocation_new(plain_type, NULL, NULL);
    if (invocation != NULL) {
        ((Invocation *)invocation)->guard = Py_NewRef(guard);
    }
    return invocation;
}

/* The method is looked up each time, as a call would: the guard, its class or a class that this is derived from
   may have another one by now. But it is not bound to the guard. */
static PyObject *
new_invocation(PyObject *guard)
{
    PyObject *method = NULL;
    bool unbound = _PyObject_GetMethod(guard, str_invocation, &method);
    if (method == NULL) {
        return NULL;
    }
    PyObject *invocation;
    if (!unbound) {
        invocation = PyObject_CallNoArgs(method);
    }
    else if (ready && PyObject_TypeCheck(guard, &PolicyFields) && ((Policy *)guard)->enforce == Py_True &&
             ((Policy *)guard)->plain_invocation == method) {
        invocation = new_plain_invocation(guard);
    }
    else {
        invocation = PyObject_CallOneArg(method, guard);
    }
    Py_DECREF(method);
    return invocation;
}

/* A field of a middleware. A derived class may have something else under its name. */
static PyObject *
field(PyObject *middleware, PyObject *value, PyObject *name)
{
    return value != NULL ? Py_NewRef(value) : PyObject_GetAttr(middleware, name);
}

static PyObject *
begin(PyObject *module, PyObject *middleware)
{
    Middleware *fields = (Middleware *)middleware;
    if (!PyObject_TypeCheck(middleware, &MiddlewareFields)) {
        PyErr_SetString(PyExc_TypeError, "begin() takes a middleware");
        return NULL;
    }
    PyObject *guard = NULL, *invocation = NULL, *before = NULL, *result = NULL;
    PyObject *app = field(middleware, fields->app, str_app);
    if (app != NULL) {
        guard = field(middleware, fields->guard, str_guard);
    }
    if (guard != NULL) {
        invocation = new_invocation(guard);
    }
    if (invocation != NULL) {
        before = get_current();
    }
    if (before != NULL) {
        result = PyTuple_Pack(3, app, invocation, before);
    }
    if (result != NULL && set_current(invocation) < 0) {
        Py_CLEAR(result);
    }
    Py_XDECREF(app);
    Py_XDECREF(guard);
    Py_XDECREF(invocation);
    Py_XDECREF(before);
    return result;
}

/* End the invocation if that takes nothing. False if there is more to do. */
static bool
end_quickly(PyObject *invocation)
{
    if (Py_TYPE(invocation) != plain_type) {
        return false;
    }
    Invocation *fields = (Invocation *)invocation;
    if (fields->guard == NULL || !PyObject_TypeCheck(fields->guard, &PolicyFields) ||
        ((Policy *)fields->guard)->on_report != Py_None) {
        return false;
    }
    /* First, as Invocation.end() does: from now on nothing can be mounted. */
    Py_XSETREF(fields->ended, Py_NewRef(Py_True));
    return fields->touched == Py_False;
}

static PyObject *
finish(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "finish() takes an invocation and what was current before");
        return NULL;
    }
    PyObject *now = get_current();
    if (now == NULL) {
        return NULL;
    }
    Py_DECREF(now);
    if (now == args[0] && set_current(args[1]) < 0) {
        return NULL;
    }
    return PyBool_FromLong(end_quickly(args[0]));
}

/* The finalizer of async generators of this thread; None if there is none. A borrowed reference. */
static PyObject *
current_finalizer(void)
{
    PyObject *finalizer = PyThreadState_Get()->async_gen_finalizer;
    return finalizer != NULL ? finalizer : Py_None;
}

static PyObject *
generator_finalizer(PyObject *module, PyObject *unused)
{
    return Py_NewRef(current_finalizer());
}

/* Whether the server offers to send files, by the "extensions" of the scope: 1, 0, or -1 for an error. What is
   no dict may. */
static int
may_send_files(PyObject *scope)
{
    PyObject *extensions = PyDict_GetItemWithError(scope, str_extensions);
    if (extensions == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    return PyDict_CheckExact(extensions) ? PyDict_Contains(extensions, str_pathsend) : 1;
}

static PyObject *
is_usual(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "is_usual() takes a scope and the class of a finalizer");
        return NULL;
    }
    PyObject *scope = args[0];
    if (!PyDict_CheckExact(scope) || (PyObject *)Py_TYPE(current_finalizer()) != args[1]) {
        Py_RETURN_FALSE;
    }
    /* Servers have these as constants, so the same objects. The Python code compares what is not. */
    PyObject *kind = PyDict_GetItemWithError(scope, str_type);
    if (kind != str_http && kind != str_websocket) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_False);
    }
    int sends = may_send_files(scope);
    return sends < 0 ? NULL : PyBool_FromLong(!sends);
}

/* --- the body of a WSGI response ----------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *invocation;
    PyObject *iterable;
    PyObject *iterator;
    char over;
} Steps;

static int
steps_init(Steps *self, PyObject *args, PyObject *kwargs)
{
    PyObject *iterable, *invocation;
    if ((kwargs != NULL && PyDict_GET_SIZE(kwargs)) ||
        !PyArg_UnpackTuple(args, "Steps", 2, 2, &iterable, &invocation)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "Steps() takes no keyword arguments");
        }
        return -1;
    }
    Py_XSETREF(self->iterable, Py_NewRef(iterable));
    Py_XSETREF(self->invocation, Py_NewRef(invocation));
    return 0;
}

static int
steps_traverse(Steps *self, visitproc visit, void *arg)
{
    Py_VISIT(self->invocation);
    Py_VISIT(self->iterable);
    Py_VISIT(self->iterator);
    return 0;
}

static int
steps_clear(Steps *self)
{
    Py_CLEAR(self->invocation);
    Py_CLEAR(self->iterable);
    Py_CLEAR(self->iterator);
    return 0;
}

/* A body that was dropped without being closed: _abandon() of the derived class ends the invocation. */
static void
steps_finalize(PyObject *self)
{
    Steps *steps = (Steps *)self;
    if (steps->over || steps->invocation == NULL) {
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    steps->over = 1;
    PyObject *result = PyObject_CallMethodNoArgs(self, str_abandon);
    if (result == NULL) {
        PyErr_WriteUnraisable(self);
    }
    Py_XDECREF(result);
    PyErr_Restore(type, value, traceback);
}

static void
steps_dealloc(PyObject *self)
{
    if (PyObject_CallFinalizerFromDealloc(self) < 0) {
        return; /* somebody holds it again */
    }
    PyObject_GC_UnTrack(self);
    steps_clear((Steps *)self);
    Py_TYPE(self)->tp_free(self);
}

/* Whether the body was made whole: a derived class may forget to call __init__(). */
static bool
is_made(Steps *self)
{
    if (self->invocation == NULL || self->iterable == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Steps.__init__() was not called");
        return false;
    }
    return true;
}

static PyObject *
steps_step(Steps *self, PyObject *unused)
{
    if (!is_made(self)) {
        return NULL;
    }
    PyObject *before = get_current();
    if (before == NULL) {
        return NULL;
    }
    if (set_current(self->invocation) < 0) {
        Py_DECREF(before);
        return NULL;
    }
    PyObject *part = NULL, *iterator;
    if (self->iterator == NULL || self->iterator == Py_None) {
        PyObject *iterable = Py_NewRef(self->iterable); /* the application may close the body meanwhile */
        iterator = PyObject_GetIter(iterable);
        Py_DECREF(iterable);
        if (iterator != NULL) {
            Py_XSETREF(self->iterator, Py_NewRef(iterator));
        }
    }
    else {
        iterator = Py_NewRef(self->iterator);
    }
    if (iterator != NULL) {
        part = PyIter_Next(iterator);
        Py_DECREF(iterator);
    }
    int failed = restore_current(before);
    Py_DECREF(before);
    if (failed) {
        Py_XDECREF(part);
        return NULL;
    }
    if (part == NULL && !PyErr_Occurred()) {
        Py_CLEAR(self->iterator);
        return Py_NewRef(end_of_body);
    }
    return part;
}

/* Call the close() of the iterable, if it has one. */
static int
close_iterable(PyObject *iterable)
{
    PyObject *close = NULL;
    if (PyObject_GetOptionalAttr(iterable, str_close, &close) < 0) {
        return -1;
    }
    if (close == NULL) {
        return 0;
    }
    PyObject *result = PyObject_CallNoArgs(close);
    Py_DECREF(close);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static PyObject *
steps_finish(Steps *self, PyObject *unused)
{
    if (self->over) {
        Py_RETURN_NONE;
    }
    if (!is_made(self)) {
        return NULL;
    }
    self->over = 1;
    PyObject *before = get_current();
    if (before == NULL || set_current(self->invocation) < 0) {
        Py_XDECREF(before);
        return NULL;
    }
    PyObject *invocation = Py_NewRef(self->invocation);
    PyObject *iterable = Py_NewRef(self->iterable);
    close_iterable(iterable);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    /* Within the invocation: dropping a generator runs its finally clauses, which belong to the request. */
    Py_CLEAR(self->iterator);
    Py_XSETREF(self->iterable, Py_NewRef(nothing));
    Py_DECREF(iterable);
    set_current(before);
    Py_DECREF(before);
    if (!PyErr_Occurred() && !end_quickly(invocation)) {
        Py_XDECREF(PyObject_CallMethodNoArgs(invocation, str_end));
    }
    Py_DECREF(invocation);
    if (PyErr_Occurred()) { /* in tmpguard itself: that is the error to show */
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        return NULL;
    }
    if (type != NULL) {
        PyErr_Restore(type, value, traceback);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMemberDef steps_members[] = {
    {"_invocation", T_OBJECT_EX, offsetof(Steps, invocation), READONLY, NULL},
    {"_iterable", T_OBJECT, offsetof(Steps, iterable), 0, NULL},
    {"_iterator", T_OBJECT, offsetof(Steps, iterator), 0, NULL},
    {NULL},
};

static PyMethodDef steps_methods[] = {
    {"_step", (PyCFunction)steps_step, METH_NOARGS, NULL},
    {"_finish", (PyCFunction)steps_finish, METH_NOARGS, NULL},
    {NULL},
};

static PyTypeObject StepsType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tmpguard.core._speedups.Steps",
    .tp_basicsize = sizeof(Steps),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = fields_new,
    .tp_init = (initproc)steps_init,
    .tp_traverse = (traverseproc)steps_traverse,
    .tp_clear = (inquiry)steps_clear,
    .tp_finalize = steps_finalize,
    .tp_dealloc = steps_dealloc,
    .tp_members = steps_members,
    .tp_methods = steps_methods,
};

/* --- the quick calls ------------------------------------------------------------------------------------------ */

enum kind { STAT, OPEN };

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *original;
    PyObject *within;
    int kind;
} Quick;

static bool
is_expired(Known *known)
{
    struct timespec now;
    if (known->expires == NULL || !PyFloat_CheckExact(known->expires) ||
        clock_gettime(CLOCK_MONOTONIC, &now) != 0) {
        return true;
    }
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec >= PyFloat_AS_DOUBLE(known->expires);
}

/* Whether the invocation's working directory is the one that `known` says the process is in. -1 for an error. */
static int
is_at_home(PyObject *invocation, Known *known)
{
    if (known->process_directory == NULL || !PyUnicode_CheckExact(known->process_directory)) {
        return 0;
    }
    PyObject *namespace = PyObject_GetAttr(invocation, str_made_namespace);
    if (namespace == NULL) {
        return -1;
    }
    if (namespace == Py_None) {
        Py_DECREF(namespace);
        return 0;
    }
    PyObject *cwd = PyObject_GetAttr(namespace, str_cwd);
    Py_DECREF(namespace);
    if (cwd == NULL) {
        return -1;
    }
    int same = PyUnicode_CheckExact(cwd) && PyUnicode_Compare(cwd, known->process_directory) == 0;
    Py_DECREF(cwd);
    return PyErr_Occurred() ? -1 : same;
}

/* Whether `path` can be given to the kernel as it is: it leads through no symlink outside /tmp. -1: an error. */
static int
is_known(PyObject *invocation, Table *table, PyObject *path)
{
    Known *known = (Known *)table->known;
    if (known == NULL || !PyObject_TypeCheck((PyObject *)known, &KnownFields) || known->paths == NULL ||
        known->relative == NULL) {
        return 0;
    }
    Py_INCREF(known);
    int found = PySet_Contains(known->paths, path);
    if (found == 0) {
        found = PySet_Contains(known->relative, path);
        if (found > 0) {
            found = is_at_home(invocation, known);
        }
    }
    if (found > 0 && is_expired(known)) {
        found = 0;
    }
    Py_DECREF(known);
    return found;
}

/* The real directory behind the invocation's /tmp, if paths below it can be translated by their text alone. NULL,
   perhaps with an exception. */
static PyObject *
prefix_of(PyObject *invocation)
{
    PyObject *mounted = PyObject_GetAttr(invocation, str_mounted);
    if (mounted == NULL) {
        return NULL;
    }
    PyObject *prefix = mounted == no_volume ? NULL : PyObject_GetAttr(mounted, str_prefix);
    Py_DECREF(mounted);
    if (prefix != NULL && (!PyUnicode_CheckExact(prefix) || PyUnicode_GET_LENGTH(prefix) == 0)) {
        Py_CLEAR(prefix);
    }
    return prefix;
}

/* The real path of `path` below /tmp, if its text alone determines it. NULL, perhaps with an exception. */
static PyObject *
real_path(PyObject *invocation, Table *table, PyObject *path)
{
    if (table->tails == NULL || !PyDict_CheckExact(table->tails)) {
        return NULL;
    }
    PyObject *tail = PyDict_GetItemWithError(table->tails, path);
    if (tail == NULL || !PyUnicode_CheckExact(tail) || PyUnicode_GET_LENGTH(tail) == 0) {
        return NULL;
    }
    Py_INCREF(tail);
    PyObject *prefix = prefix_of(invocation);
    PyObject *real = prefix == NULL ? NULL : PyUnicode_Concat(prefix, tail);
    Py_XDECREF(prefix);
    Py_DECREF(tail);
    return real;
}

/* The table to look `invocation` up in; NULL if Python has to find out. A borrowed reference: the guard, which
   the invocation holds, keeps it. */
static Table *
table_of(PyObject *invocation)
{
    if (!PyObject_TypeCheck(invocation, &InvocationFields)) {
        return NULL;
    }
    PyObject *guard = ((Invocation *)invocation)->guard;
    if (guard == NULL || !PyObject_TypeCheck(guard, &PolicyFields) || ((Policy *)guard)->enforce != Py_True) {
        return NULL;
    }
    PyObject *table = ((Policy *)guard)->quick_table;
    return table != NULL && PyObject_TypeCheck(table, &TableFields) ? (Table *)table : NULL;
}

/* Whether the exception that is set is the kernel's for `path`: the Python code then tries again, and raises it
   with its note and the application's path. Not what a signal handler raised in a call that waits: the alarm
   would be lost. */
static bool
drop_os_error(PyObject *path)
{
    if (!PyErr_ExceptionMatches(PyExc_OSError)) {
        return false;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    bool dropped = false;
    if (value != NULL && PyObject_TypeCheck(value, (PyTypeObject *)PyExc_OSError)) {
        PyOSErrorObject *error = (PyOSErrorObject *)value;
        dropped = error->myerrno != NULL && error->myerrno != Py_None && error->filename != NULL &&
                  PyUnicode_CheckExact(error->filename) && PyUnicode_Compare(error->filename, path) == 0;
    }
    if (dropped) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
    }
    else {
        PyErr_Restore(type, value, traceback);
    }
    return dropped;
}

/* 1 and *result (NULL with an exception), or 0 if the Python code has to do it, -1 with an exception. */
static int
stat_quickly(Quick *self, PyObject *invocation, PyObject *path, PyObject **result)
{
    Table *table = table_of(invocation);
    if (table == NULL) {
        return 0;
    }
    int known = is_known(invocation, table, path);
    if (known < 0) {
        return -1;
    }
    if (known) {
        *result = PyObject_CallOneArg(self->original, path);
        return 1;
    }
    PyObject *real = real_path(invocation, table, path);
    if (real == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    *result = PyObject_CallOneArg(self->original, real);
    int left = *result == NULL && drop_os_error(real);
    Py_DECREF(real);
    return !left;
}

/* Whether the mode of open() is one that only reads: "r", "rb" or "rt". */
static bool
reads(PyObject *mode)
{
    if (!PyUnicode_CheckExact(mode) || !PyUnicode_IS_ASCII(mode)) {
        return false;
    }
    const char *text = (const char *)PyUnicode_1BYTE_DATA(mode);
    Py_ssize_t length = PyUnicode_GET_LENGTH(mode);
    return length > 0 && text[0] == 'r' && (length == 1 || (length == 2 && (text[1] == 'b' || text[1] == 't')));
}

/* Whether the arguments of open() are a path, a mode to read, and at most an encoding and the like. */
static bool
opens_to_read(PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count < 1 || count > 2 || !PyUnicode_CheckExact(args[0]) || (count == 2 && !reads(args[1]))) {
        return false;
    }
    Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (name == str_mode && count == 1 && reads(args[count + i])) {
            continue;
        }
        if (name != str_encoding && name != str_errors && name != str_newline) {
            return false;
        }
    }
    return count + named < MOST_ARGUMENTS;
}

/* Give the opened file the application's name. */
static int
rename_opened(PyObject *opened, PyObject *name)
{
    PyObject *raw = NULL;
    PyObject *buffer = NULL;
    if (PyObject_GetOptionalAttr(opened, str_buffer, &buffer) < 0) {
        return -1;
    }
    raw = PyObject_GetAttr(buffer != NULL ? buffer : opened, str_raw);
    Py_XDECREF(buffer);
    if (raw == NULL) {
        return -1;
    }
    int failed = PyObject_SetAttr(raw, str_name, name);
    Py_DECREF(raw);
    return failed;
}

/* Whether the invocation has open files from /tmp/package, so that Python has to keep account. -1: an error. */
static int
has_bundled(PyObject *invocation)
{
    PyObject *namespace = PyObject_GetAttr(invocation, str_made_namespace);
    if (namespace == NULL) {
        return -1;
    }
    if (namespace == Py_None) {
        Py_DECREF(namespace);
        return 0;
    }
    PyObject *bundled = PyObject_GetAttr(namespace, str_bundled);
    Py_DECREF(namespace);
    if (bundled == NULL) {
        return -1;
    }
    int any = !PyDict_CheckExact(bundled) || PyDict_GET_SIZE(bundled) > 0;
    Py_DECREF(bundled);
    return any;
}

static int
open_quickly(Quick *self, PyObject *invocation, PyObject *const *args, Py_ssize_t count, PyObject *names,
             PyObject **result)
{
    PyObject *path = args[0];
    Table *table = table_of(invocation);
    if (table == NULL) {
        return 0;
    }
    int known = is_known(invocation, table, path);
    if (known < 0) {
        return -1;
    }
    if (known) {
        int any = has_bundled(invocation);
        if (any) {
            return any < 0 ? -1 : 0;
        }
        *result = PyObject_Vectorcall(self->original, args, count, names);
        return *result == NULL && drop_os_error(path) ? 0 : 1;
    }
    PyObject *real = real_path(invocation, table, path);
    if (real == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    PyObject *changed[MOST_ARGUMENTS];
    memcpy(changed, args, (count + named) * sizeof(PyObject *));
    changed[0] = real;
    *result = PyObject_Vectorcall(self->original, changed, count, names);
    int left = *result == NULL && drop_os_error(real);
    Py_DECREF(real);
    if (*result == NULL) {
        return !left;
    }
    if (rename_opened(*result, path) < 0) {
        Py_CLEAR(*result);
    }
    return 1;
}

/* Call the Python function, whose first parameter is ignored. */
static PyObject *
call_within(Quick *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    if (nargsf & PY_VECTORCALL_ARGUMENTS_OFFSET) {
        PyObject **shifted = (PyObject **)args - 1;
        PyObject *kept = shifted[0];
        shifted[0] = (PyObject *)self;
        PyObject *result = PyObject_Vectorcall(self->within, shifted, count + 1, names);
        shifted[0] = kept;
        return result;
    }
    Py_ssize_t all = count + (names == NULL ? 0 : PyTuple_GET_SIZE(names));
    PyObject *few[MOST_ARGUMENTS + 2], **shifted = few;
    if (all > MOST_ARGUMENTS) {
        shifted = PyMem_Malloc((all + 1) * sizeof(PyObject *));
        if (shifted == NULL) {
            return PyErr_NoMemory();
        }
    }
    shifted[0] = (PyObject *)self;
    if (all > 0) {
        memcpy(shifted + 1, args, all * sizeof(PyObject *));
    }
    PyObject *result = PyObject_Vectorcall(self->within, shifted, count + 1, names);
    if (shifted != few) {
        PyMem_Free(shifted);
    }
    return result;
}

static PyObject *
quick_call(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Quick *self = (Quick *)callable;
    PyObject *invocation = get_current();
    if (invocation == NULL) {
        return NULL;
    }
    if (invocation == Py_None) {
        Py_DECREF(invocation);
        return PyObject_Vectorcall(self->original, args, nargsf, names);
    }
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    PyObject *result = NULL;
    int done = 0;
    if (self->kind == OPEN) {
        if (opens_to_read(args, count, names)) {
            done = open_quickly(self, invocation, args, count, names, &result);
        }
    }
    else if (count == 1 && names == NULL && PyUnicode_CheckExact(args[0])) {
        done = stat_quickly(self, invocation, args[0], &result);
    }
    Py_DECREF(invocation);
    if (done) {
        return result;
    }
    return call_within(self, args, nargsf, names);
}

static int
quick_init(Quick *self, PyObject *args, PyObject *kwargs)
{
    PyObject *original, *within;
    const char *public;
    if (!PyArg_ParseTuple(args, "OOs:Quick", &original, &within, &public)) {
        return -1;
    }
    Py_XSETREF(self->original, Py_NewRef(original));
    Py_XSETREF(self->within, Py_NewRef(within));
    self->kind = strcmp(public, "io.open") == 0 ? OPEN : STAT;
    self->vectorcall = quick_call;
    PyTypeObject *type = Py_TYPE(self);
    if (type->tp_call == PyVectorcall_Call && type->tp_vectorcall_offset == offsetof(Quick, vectorcall)) {
        type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL; /* which a class in Python does not inherit before 3.12 */
    }
    return 0;
}

static int
quick_traverse(Quick *self, visitproc visit, void *arg)
{
    Py_VISIT(self->original);
    Py_VISIT(self->within);
    return 0;
}

/* Only when it is freed. The collector does not clear it: what is called meanwhile may still call it. */
static int
quick_clear(Quick *self)
{
    Py_CLEAR(self->original);
    Py_CLEAR(self->within);
    return 0;
}

DEALLOC(quick, Quick)

static PyMemberDef quick_members[] = {
    {"_original", T_OBJECT_EX, offsetof(Quick, original), READONLY, NULL},
    {"_within", T_OBJECT_EX, offsetof(Quick, within), READONLY, NULL},
    {NULL},
};

static PyTypeObject QuickType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tmpguard.core._speedups.Quick",
    .tp_basicsize = sizeof(Quick),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Quick, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_new = fields_new,
    .tp_init = (initproc)quick_init,
    .tp_traverse = (traverseproc)quick_traverse,
    .tp_dealloc = quick_dealloc,
    .tp_members = quick_members,
};

/* --- the audit hook ---------------------------------------------------------------------------------------- */

static PyObject *audit_function;
static bool added;

/* O_WRONLY | O_RDWR, and whatever creates or empties a file: as CHANGING in tmpguard/interpose/modes.py. */
static long changing;

static bool
is_harmless_open(PyObject *args)
{
    if (!PyTuple_CheckExact(args) || PyTuple_GET_SIZE(args) != 3) {
        return false;
    }
    PyObject *flags = PyTuple_GET_ITEM(args, 2);
    if (!PyLong_CheckExact(flags)) {
        return false;
    }
    int overflow;
    long value = PyLong_AsLongAndOverflow(flags, &overflow);
    return !overflow && value != 0 && !(value & changing);
}

/* Whether the file that an audited open() names is in the invocation's own scratch directory, as nearly every file
   is that the patched layer opens to write to. -1 for an error. */
static int
opens_in_own_tmp(PyObject *invocation, PyObject *args)
{
    if (!PyTuple_CheckExact(args) || PyTuple_GET_SIZE(args) != 3 ||
        !PyUnicode_CheckExact(PyTuple_GET_ITEM(args, 0)) || !PyObject_TypeCheck(invocation, &InvocationFields)) {
        return 0;
    }
    PyObject *path = PyTuple_GET_ITEM(args, 0);
    PyObject *prefix = prefix_of(invocation);
    if (prefix == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    Py_ssize_t length = PyUnicode_GET_LENGTH(prefix);
    int within = 0;
    if (PyUnicode_GET_LENGTH(path) > length && PyUnicode_READ_CHAR(path, length) == '/') {
        within = (int)PyUnicode_Tailmatch(path, prefix, 0, PY_SSIZE_T_MAX, -1);
        if (within > 0) {
            Py_ssize_t above = PyUnicode_Find(path, str_above, length, PY_SSIZE_T_MAX, 1);
            within = above == -1 ? 1 : above < 0 ? -1 : 0; /* -2 is an error */
        }
    }
    Py_DECREF(prefix);
    return within;
}

static bool
is_of_interest(const char *event)
{
    if (event[0] == 'o') {
        if (strcmp(event, "open") == 0) {
            return true;
        }
        return event[1] == 's' && event[2] == '.' && strcmp(event, "os.listdir") != 0 &&
               strcmp(event, "os.scandir") != 0 && strcmp(event, "os.putenv") != 0;
    }
    return event[0] == 's' && (strcmp(event, "socket.bind") == 0 || strcmp(event, "sqlite3.connect") == 0 ||
                               strcmp(event, "subprocess.Popen") == 0);
}

static int
audit(const char *event, PyObject *args, void *data)
{
    /* Every audited event of the process pays for these lines. */
    if (!ready || !is_of_interest(event) || Py_IsFinalizing() ||
        PyInterpreterState_Get() != main_interpreter) {
        return 0;
    }
    PyObject *invocation = get_current();
    if (invocation == NULL) {
        return -1;
    }
    int passes = invocation == Py_None;
    if (!passes && event[2] == 'e') {
        passes = is_harmless_open(args) ? 1 : opens_in_own_tmp(invocation, args);
    }
    Py_DECREF(invocation);
    if (passes) {
        return passes < 0 ? -1 : 0;
    }
    PyObject *name = PyUnicode_FromString(event);
    if (name == NULL) {
        return -1;
    }
    PyThreadState *thread = PyThreadState_Get();
    PyThreadState_EnterTracing(thread); /* as for a hook in Python, which debuggers do not step into */
    PyObject *result = PyObject_CallFunctionObjArgs(audit_function, name, args, NULL);
    PyThreadState_LeaveTracing(thread);
    Py_DECREF(name);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static PyObject *
add_audit_hook(PyObject *module, PyObject *args)
{
    PyObject *function;
    if (!PyArg_ParseTuple(args, "Ol:add_audit_hook", &function, &changing)) {
        return NULL;
    }
    Py_XSETREF(audit_function, Py_NewRef(function));
    if (!added) {
        if (PySys_AddAuditHook(audit, NULL) < 0) {
            if (!PyErr_ExceptionMatches(PyExc_Exception)) {
                return NULL;
            }
            PyErr_Clear(); /* another hook refuses this one: sys.addaudithook() does not say so, either */
            Py_RETURN_NONE;
        }
        added = true;
    }
    Py_RETURN_NONE;
}

/* --- the wipe of a few files --------------------------------------------------------------------------------- */

/* As PAGE and _UNFRAGMENTED in tmpguard/core/storage/pages.py, TMP_MODE and FEW in small.py. */
#define PAGE 4096
#define UNFRAGMENTED (4 * PAGE)
#define TMP_MODE 01777
#define MOST_FILES 16

/* What getdents64() writes for each name: not every C library declares it. */
typedef struct {
    unsigned long long inode;
    long long offset;
    unsigned short length;
    unsigned char kind;
    char name[];
} Entry;

/* The names in a directory, if they are few: what getdents64() wrote, and where each name begins in it. */
typedef struct {
    _Alignas(Entry) char entries[PAGE];
    const char *names[MOST_FILES];
    int count;
} Listing;

/* List the directory, which was just opened or rewound: on btrfs, a descriptor shows the names as they were then.
   False if that failed or there are more than `few`. */
static bool
list_few(int directory, int few, Listing *listing)
{
    size_t filled = 0;
    listing->count = 0;
    if (few > MOST_FILES) {
        return false;
    }
    for (;;) {
        char *place = listing->entries + filled;
        long got = syscall(SYS_getdents64, directory, place, sizeof(listing->entries) - filled);
        if (got <= 0) {
            return got == 0;
        }
        for (long at = 0; at < got;) {
            Entry *entry = (Entry *)(place + at);
            at += entry->length;
            if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0) {
                continue;
            }
            if (listing->count == few) {
                return false;
            }
            listing->names[listing->count++] = entry->name;
        }
        filled += (size_t)got;
    }
}

/* Add up what the listed files take up. False if one is not a file with a single name that surely has no holes:
   see is_surely_whole() in pages.py. */
static bool
add_up(int directory, const Listing *listing, long long *total)
{
    *total = 0;
    for (int i = 0; i < listing->count; i++) {
        struct stat status;
        if (fstatat(directory, listing->names[i], &status, AT_SYMLINK_NOFOLLOW) < 0 ||
            !S_ISREG(status.st_mode) || status.st_nlink > 1) {
            return false;
        }
        if (status.st_size > UNFRAGMENTED) {
            return false; /* first: the largest size that there is, of a hole, would overflow below */
        }
        long long length = ((long long)status.st_size + PAGE - 1) & -PAGE;
        if ((long long)status.st_blocks * 512 < length) {
            return false;
        }
        *total += length;
    }
    return true;
}

/* Whether the open directory is as it was made: 1, 0, or -1 for an error. */
static int
is_as_made(int directory)
{
    struct stat status;
    if (fstat(directory, &status) < 0) {
        return -1;
    }
    if ((status.st_mode & 07777) != TMP_MODE || status.st_uid != geteuid() || status.st_size > PAGE) {
        return 0;
    }
    ssize_t attributes = flistxattr(directory, NULL, 0);
    if (attributes < 0) {
        return errno == ENOTSUP ? 1 : -1; /* such a file system has none */
    }
    return attributes == 0;
}

/* The names of a listing as a list of str; NULL with an exception. */
static PyObject *
names_of(const Listing *listing)
{
    PyObject *names = PyList_New(listing->count);
    for (int i = 0; names != NULL && i < listing->count; i++) {
        PyObject *name = PyUnicode_DecodeFSDefault(listing->names[i]);
        if (name == NULL) {
            Py_CLEAR(names);
            break;
        }
        PyList_SET_ITEM(names, i, name);
    }
    return names;
}

static PyObject *
survey(PyObject *module, PyObject *args)
{
    int parent, few;
    const char *name;
    if (!PyArg_ParseTuple(args, "isi:survey", &parent, &name, &few)) {
        return NULL;
    }
    Listing listing;
    long long total = 0;
    int unchanged = -1, directory;
    Py_BEGIN_ALLOW_THREADS
    directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory >= 0 && list_few(directory, few, &listing) && add_up(directory, &listing, &total)) {
        unchanged = is_as_made(directory);
    }
    Py_END_ALLOW_THREADS
    PyObject *found = NULL;
    if (unchanged >= 0) {
        PyObject *names = names_of(&listing);
        found = names == NULL ? NULL
                              : Py_BuildValue("iLNO", directory, total, names, unchanged ? Py_True : Py_False);
    }
    if (found == NULL && directory >= 0) {
        close(directory);
    }
    return found == NULL && !PyErr_Occurred() ? Py_NewRef(Py_None) : found;
}

/* Set the time of the directory's last change to the present one, in nanoseconds, which is returned; -1 if that
   failed or it is not empty. */
static long long
prove_empty(int directory)
{
    Listing listing;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (futimens(directory, (struct timespec[]){now, now}) < 0 || lseek(directory, 0, SEEK_SET) < 0 ||
        !list_few(directory, 0, &listing)) {
        return -1;
    }
    return (long long)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Rename the directory, which is open, move its files to the trash, and unlink them there. The time of its last
   change as above, -1 if anything but the first failed or it is not empty, -2 if that failed. */
static long long
empty_directory(int parent, const char *name, const char *spare, const char *trash, int directory,
                PyObject *const *files, int count)
{
    if (renameat(parent, name, parent, spare) < 0) {
        return -2;
    }
    for (int i = 0; i < count; i++) {
        if (renameat(directory, PyBytes_AS_STRING(files[i]), parent, trash) < 0 ||
            unlinkat(parent, trash, 0) < 0) {
            return -1;
        }
    }
    return prove_empty(directory);
}

static PyObject *
empty(PyObject *module, PyObject *args)
{
    int parent, directory, count = 0;
    const char *name, *spare, *trash;
    PyObject *names, *files[MOST_FILES];
    if (!PyArg_ParseTuple(args, "isssiO!:empty", &parent, &name, &spare, &trash, &directory, &PyList_Type,
                          &names)) {
        return NULL;
    }
    if (PyList_GET_SIZE(names) > MOST_FILES) {
        PyErr_SetString(PyExc_ValueError, "too many files");
        return NULL;
    }
    while (count < PyList_GET_SIZE(names) &&
           PyUnicode_FSConverter(PyList_GET_ITEM(names, count), &files[count])) {
        count++;
    }
    PyObject *result = NULL;
    if (count == PyList_GET_SIZE(names)) {
        long long changed;
        Py_BEGIN_ALLOW_THREADS /* once: in a process with many busy threads, it takes long to get the lock back */
        changed = empty_directory(parent, name, spare, trash, directory, files, count);
        Py_END_ALLOW_THREADS
        result = changed >= 0    ? PyLong_FromLongLong(changed)
                 : changed == -1 ? Py_NewRef(Py_None)
                                 : PyErr_SetFromErrno(PyExc_OSError);
    }
    while (count > 0) {
        Py_DECREF(files[--count]);
    }
    return result;
}

static PyObject *
last_change(PyObject *module, PyObject *path)
{
    PyObject *name;
    if (!PyUnicode_FSConverter(path, &name)) {
        return NULL;
    }
    struct stat status;
    int failed = lstat(PyBytes_AS_STRING(name), &status); /* with the lock: what was just used is in the cache */
    Py_DECREF(name);
    if (failed) {
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
    }
    return PyLong_FromLongLong((long long)status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec);
}

/* --- the search for references ----------------------------------------------------------------------------- */

/* A hash table of addresses: open addressing, no more than a quarter full. NULL is an empty slot. */
typedef struct {
    PyObject_HEAD
    const void **slots;
    size_t mask;
} Sought;

/* The slot of `address`, or the empty one where it would be. */
static const void **
slot_of(Sought *self, const void *address)
{
    size_t place = ((size_t)address >> 4) & self->mask;
    while (self->slots[place] != NULL && self->slots[place] != address) {
        place = (place + 1) & self->mask;
    }
    return &self->slots[place];
}

static int
sought_init(Sought *self, PyObject *args, PyObject *kwargs)
{
    PyObject *ids;
    if (!PyArg_ParseTuple(args, "O:Sought", &ids)) {
        return -1;
    }
    ids = PySequence_Fast(ids, "Sought() takes the ids of objects");
    if (ids == NULL) {
        return -1;
    }
    Py_ssize_t count = PySequence_Fast_GET_SIZE(ids);
    size_t size = 64;
    while (size < 4 * (size_t)count) {
        size *= 2;
    }
    const void **slots = PyMem_Calloc(size, sizeof(void *));
    if (slots == NULL) {
        Py_DECREF(ids);
        PyErr_NoMemory();
        return -1;
    }
    PyMem_Free(self->slots);
    self->slots = slots;
    self->mask = size - 1;
    for (Py_ssize_t i = 0; i < count; i++) {
        const void *address = PyLong_AsVoidPtr(PySequence_Fast_GET_ITEM(ids, i));
        if (address == NULL) {
            Py_DECREF(ids);
            if (!PyErr_Occurred()) {
                PyErr_SetString(PyExc_ValueError, "0 is no object's id");
            }
            return -1;
        }
        *slot_of(self, address) = address;
    }
    Py_DECREF(ids);
    return 0;
}

static void
sought_dealloc(Sought *self)
{
    PyMem_Free(self->slots);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *
sought_is_in(Sought *self, PyObject *namespace)
{
    if (self->slots == NULL || !PyDict_Check(namespace)) {
        PyErr_Format(PyExc_TypeError, "is_in() takes a namespace, not %.200s", Py_TYPE(namespace)->tp_name);
        return NULL;
    }
    Py_ssize_t position = 0;
    PyObject *value;
    while (PyDict_Next(namespace, &position, NULL, &value)) {
        if (*slot_of(self, value) != NULL) {
            Py_RETURN_TRUE;
        }
    }
    Py_RETURN_FALSE;
}

static PyMethodDef sought_methods[] = {
    {"is_in", (PyCFunction)sought_is_in, METH_O, NULL},
    {NULL},
};

static PyTypeObject SoughtType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tmpguard.core._speedups.Sought",
    .tp_basicsize = sizeof(Sought),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = fields_new,
    .tp_init = (initproc)sought_init,
    .tp_dealloc = (destructor)sought_dealloc,
    .tp_methods = sought_methods,
};

/* --- the module -------------------------------------------------------------------------------------------- */

/* Name the members as __slots__ does, so that the objects can be copied. */
static int
declare_slots(PyTypeObject *type)
{
    Py_ssize_t count = 0;
    while (type->tp_members != NULL && type->tp_members[count].name != NULL) {
        count++;
    }
    if (count == 0) {
        return 0;
    }
    PyObject *names = PyTuple_New(count);
    if (names == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyUnicode_InternFromString(type->tp_members[i].name);
        if (name == NULL) {
            Py_DECREF(names);
            return -1;
        }
        PyTuple_SET_ITEM(names, i, name);
    }
    int failed = PyDict_SetItemString(type->tp_dict, "__slots__", names);
    Py_DECREF(names);
    PyType_Modified(type);
    return failed;
}

static PyObject *
configure(PyObject *module, PyObject *args)
{
    PyObject *variable, *type, *volume;
    if (!PyArg_ParseTuple(args, "O!O!O:configure", &PyContextVar_Type, &variable, &PyType_Type, &type, &volume)) {
        return NULL;
    }
    if (!PyType_IsSubtype((PyTypeObject *)type, &InvocationFields)) {
        PyErr_SetString(PyExc_TypeError, "configure() takes a class derived from InvocationFields");
        return NULL;
    }
    Py_XSETREF(current_variable, Py_NewRef(variable));
    Py_XSETREF(plain_type, (PyTypeObject *)Py_NewRef(type));
    Py_XSETREF(no_volume, Py_NewRef(volume));
    Py_RETURN_NONE;
}

static PyObject *
set_ready(PyObject *module, PyObject *value)
{
    int truth = PyObject_IsTrue(value);
    if (truth < 0) {
        return NULL;
    }
    ready = truth != 0;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"configure", configure, METH_VARARGS, NULL},
    {"set_ready", set_ready, METH_O, NULL},
    {"begin", begin, METH_O, NULL},
    {"finish", (PyCFunction)(void (*)(void))finish, METH_FASTCALL, NULL},
    {"is_usual", (PyCFunction)(void (*)(void))is_usual, METH_FASTCALL, NULL},
    {"generator_finalizer", generator_finalizer, METH_NOARGS, NULL},
    {"survey", survey, METH_VARARGS, NULL},
    {"empty", empty, METH_VARARGS, NULL},
    {"last_change", last_change, METH_O, NULL},
    {"add_audit_hook", add_audit_hook, METH_VARARGS, NULL},
    {NULL},
};

static int
intern_names(void)
{
    struct {
        PyObject **place;
        const char *text;
    } names[] = {
        {&str_abandon, "_abandon"},   {&str_app, "app"},
        {&str_buffer, "buffer"},      {&str_bundled, "bundled"},
        {&str_close, "close"},        {&str_cwd, "cwd"},
        {&str_encoding, "encoding"},  {&str_end, "end"},
        {&str_errors, "errors"},      {&str_guard, "guard"},
        {&str_invocation, "invocation"},
        {&str_made_namespace, "made_namespace"},
        {&str_mode, "mode"},          {&str_mounted, "mounted"},
        {&str_name, "name"},          {&str_newline, "newline"},
        {&str_prefix, "prefix"},
        {&str_raw, "raw"},            {&str_extensions, "extensions"},
        {&str_http, "http"},          {&str_pathsend, "http.response.pathsend"},
        {&str_type, "type"},          {&str_websocket, "websocket"},
        {&str_above, "/.."},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        *names[i].place = PyUnicode_InternFromString(names[i].text);
        if (*names[i].place == NULL) {
            return -1;
        }
    }
    return 0;
}

static int
module_exec(PyObject *module)
{
    if (main_interpreter != NULL) {
        PyErr_SetString(PyExc_ImportError, "tmpguard.core._speedups can be loaded once in a process");
        return -1;
    }
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        /* All of this would outlive the interpreter. */
        PyErr_SetString(PyExc_ImportError, "tmpguard.core._speedups is for the main interpreter");
        return -1;
    }
    if (intern_names() < 0 || PyModule_AddIntConstant(module, "REVISION", REVISION) < 0) {
        return -1;
    }
    end_of_body = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type);
    nothing = PyTuple_New(0);
    if (end_of_body == NULL || nothing == NULL || PyModule_AddObjectRef(module, "END", end_of_body) < 0) {
        return -1;
    }
    PyTypeObject *types[] = {&KnownFields,      &TableFields, &PolicyFields, &InvocationFields,
                             &MiddlewareFields, &StepsType,   &QuickType,    &SoughtType};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (PyType_Ready(types[i]) < 0 || declare_slots(types[i]) < 0 || PyModule_AddType(module, types[i]) < 0) {
            return -1;
        }
    }
    main_interpreter = PyInterpreterState_Get();
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "tmpguard.core._speedups",
    .m_doc = "The steps that every request pays for, compiled: see tmpguard.core.speedups.",
    .m_size = 0,
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&definition);
}
